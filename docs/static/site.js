// What the theme leaves without a name or a landmark, for screen readers.
document.addEventListener("DOMContentLoaded", () => {
  for (const button of document.querySelectorAll(".search-button__button")) {
    if (button.textContent.trim()) button.removeAttribute("aria-label");
  }
  for (const summary of document.querySelectorAll("details.hide summary")) {
    summary.removeAttribute("aria-label");  // its text says more
  }
  for (const summary of document.querySelectorAll("nav summary")) {
    summary.setAttribute("aria-label", "Show or hide the pages below");
  }
  for (const item of document.querySelectorAll(".sidebar-primary-item")) {
    if (item.querySelector(".logo")) {
      item.setAttribute("role", "navigation");
      item.setAttribute("aria-label", "Home");
    }
  }
});
