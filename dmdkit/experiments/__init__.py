"""What is trained and measured with which settings, and how: recipes, studies, figures."""
