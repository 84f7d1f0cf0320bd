"""Answers that the checks were not written for: the checks' authors had not seen them, and no
check may be changed for the sake of a single one. They are bodies of the exercises' functions;
`solved` is the lesson's solution."""

COLUMN = """
def column(value, like):
    return value.reshape(-1, *[1] * (like.ndim - 1))
"""
AT = "a = alpha[t].reshape(-1, 1, 1, 1)\ns = sigma[t].reshape(-1, 1, 1, 1)"
MEANS = COLUMN + """
x_t = column(alpha[t], x) * x + column(sigma[t], x) * eps
R = real(x_t, t)
F = fake(x_t, t)
def size(value):
    return column(value.abs().flatten(1).mean(1), value)
"""
SAMPLES = COLUMN + """
x = generator(z).detach()
a = column(alpha[t], x)
s = column(sigma[t], x)
x_t = a * x + s * eps
"""
GUIDED = AT + """
none = torch.full_like(label, no_class)
x_t = a * x + s * eps
c = real(x_t, t, label)
u = real(x_t, t, none)
R = c + w * (c - u)
F = fake(x_t, t, label)
def size(value):
    return value.abs().mean((1, 2, 3), keepdim=True)
"""
LABELLED = AT + """
x = generate(z, label).detach()
x_t = a * x + s * eps
v = a * eps - s * x
"""
NORMS = """
def norms(value):
    return value.flatten(1).norm(dim=1)
"""
SHARES = """
d = torch.cdist(x_t, alpha * points)
p = (-d**2 / (2 * sigma**2)).softmax(1)[..., None]
best = (p * targets).sum(1, keepdim=True)
"""
LOGITS = """
sp = torch.nn.functional.softplus
log = torch.log
p = fake.sigmoid()
q = real.sigmoid()
G, D = solved(fake, real)
"""
ADVERSARY = """
sp = torch.nn.functional.softplus
G = sp(-discriminator(x, weights.detach())).mean()
F = sp(discriminator(x.detach(), weights)).mean()
R = sp(-discriminator(real, weights)).mean()
"""
PULLS = NORMS + """
m, = torch.autograd.grad(matching, x, retain_graph=True)
n, = torch.autograd.grad(gan, x, retain_graph=True)
"""
WALK = """
def walk(step, n=len(alpha) - 1, x_t=z):
    with torch.no_grad():
        for k in range(n):
            x_t = step(student, x_t, k)
    return x_t
"""
BEFORE = {
    "ex_1_1": AT,
    "ex_1_2": AT + """
x_t = a * x + s * eps
v = a * eps - s * x
""",
    "ex_1_3": "r = alpha[t] / alpha[s]\nfresh = sigma[t]**2 - r**2 * sigma[s]**2",
    "ex_1_4": "eps = (x_t - alpha[t] * x0) / sigma[t]",
    "ex_2_1": "eps = sigma * x_t + alpha * v",
    "ex_2_3": "d = torch.cdist(x_t, alpha * points)",
    "ex_3_3": MEANS,
    "ex_3_5": SAMPLES,
    "ex_4_3": GUIDED,
    "ex_4_4": NORMS,
    "ex_4_5": LABELLED,
    "ex_5_1": "r = sigma_s / sigma_t",
    "ex_5_2": "delta = phi_t - phi_s",
    "ex_5_3": "snr = (alpha / sigma)**2\ne = (target - x)**2",
    "ex_5_4": SHARES,
    "ex_6_1": LOGITS,
    "ex_6_2": ADVERSARY,
    "ex_6_3": PULLS,
    "ex_6_4": WALK,
    "ex_8_1": "u = phi / (torch.pi / 2)",
}

WRONG = {
    "ex_1_1": [
        "(1 - s) * x + s * eps",
        "a * x + (1 - a) * eps",
        "a * x + s * eps.clamp(-1, 1)",
        "(a * x + s * eps).clamp(-1, 1)",
        "a * x + s.mean() * eps",
        "a * (x + s * eps)",
        "a * x + s * eps + 1e-2",
        "2 * solved(x, t, eps, alpha, sigma)",
        "alpha[t + 1].reshape(-1, 1, 1, 1) * x + s * eps",
    ],
    "ex_1_2": [
        "(model(x_t, t, label).v - v + s * (x - x_t)).square().mean()",
        "(model(x_t, t, label).v - v.detach()).square().flatten(1).sum(1).mean()",
        "(model(x_t, t, label).v - v).square().mean().sqrt()",
        "(model(x_t, t, label).v - v).mean().square()",
        "(model(x_t, t.flip(0), label).v - v).square().mean()",
        "(model(x_t, t, label.flip(0)).v - v).square().mean()",
        "(model(x_t, t, label).v - (eps - x)).square().mean()",
        "(model(x_t, t, label).v - a * v).square().mean()",
        "((model(x_t, t, label).v - v) / s).square().mean()",
        "(model(x + s * eps, t, label).v - v).square().mean()",
    ],
    "ex_1_3": [
        "r * sigma[s]**2 / sigma[t]**2 * x_t + alpha[s] * fresh / sigma[t] * x0",
        "r * sigma[s] / sigma[t] * x_t + alpha[s] * fresh / sigma[t]**2 * x0",
        "r * sigma[s]**2 / sigma[t]**2 * x_t + alpha[s] * fresh / sigma[t]**2",
        "r * sigma[s]**2 / sigma[t]**2 * x_t - alpha[s] * fresh / sigma[t]**2 * x0",
        "r * sigma[s]**2 / sigma[t]**2 * x_t + alpha[s] * x0",
        "r * sigma[s]**2 * x_t + alpha[s] * fresh * x0",
        "r * sigma[s]**2 / sigma[t]**2 * x_t",
    ],
    "ex_1_4": [
        "alpha[s] * x0 + sigma[s] * (x_t - alpha[s] * x0) / sigma[t]",
        "alpha[s] * x0 + (1 - alpha[s]) * eps",
        "alpha[s] * x0 + eps",
        "alpha[s] * (x0 + sigma[s] * eps)",
        "alpha[s] * x_t + sigma[s] * eps",
        "alpha[s] * x0.clamp(-1, 1) + sigma[s] * eps",
        "sigma[s] * x0 + alpha[s] * eps",
        "alpha[s] * x0 + sigma[s] * (x_t - alpha[t] * x0) / sigma[t]**2",
    ],
    "ex_2_1": [
        "-eps / alpha",
        "-(sigma * x_t + alpha * v) / (alpha * sigma)",
        "-sigma * x_t + alpha * v / sigma",
        "-(x_t + alpha * v) / sigma",
        "-eps / (2 * sigma)",
        "-(x_t - alpha * (alpha * x_t - sigma * v)) / sigma",
    ],
    "ex_2_2": [
        "(x_t + sigma**2 * score) / alpha.sqrt()",
        "(x_t + 2 * sigma**2 * score) / alpha",
        "(x_t + sigma**2 * score) / sigma",
        "(alpha * x_t + sigma**2 * score) / alpha",
        "sigma**2 * score / alpha",
        "x_t + score",
    ],
    "ex_2_3": [
        "(-d**2 / (2 * sigma)**2).softmax(1) @ points",
        "(-(x_t[:, None] - alpha * points).square().mean(2) / (2 * sigma**2)).softmax(1) @ points",
        "(-d**2 / (2 * sigma**2)).softmax(1) @ points / alpha",
        "(-d**2 / 2).softmax(1) @ points",
        "(-(x_t[:, None] - alpha * points).abs().sum(2) / (2 * sigma**2)).softmax(1) @ points",
        "x_t / alpha",
        "(-(x_t[:, None] - alpha * points).sum(2)**2 / (2 * sigma**2)).softmax(1) @ points",
    ],
    "ex_2_4": [
        "x + step_size / 2 * score + step_size**1/2 * z",
        "x + step_size / 2 * (score + z)",
        "x + step_size / 2 * score - step_size**0.5 * z",
        "x + step_size**2 / 2 * score + step_size**0.5 * z",
        "x + score / 2 + step_size**0.5 * z",
        "x + step_size / 2 * score + step_size**0.5",
    ],
    "ex_3_1": [
        "-(x - m_fake) / (2 * v_fake) + (x - m_real) / (2 * v_real)",
        "-2 * (x - m_fake) / v_fake + 2 * (x - m_real) / v_real",
        "-(x + m_fake) / v_fake + (x + m_real) / v_real",
        "-(x - m_fake)**2 / v_fake + (x - m_real)**2 / v_real",
        "-(x - m_real) / v_fake + (x - m_fake) / v_real",
        "-(x - m_fake) / v_fake + (x - m_real) / v_fake",
        "m_fake / v_fake - m_real / v_real",
        "(-(x - m_fake) / v_fake + (x - m_real) / v_real).mean()",
    ],
    "ex_3_2": [
        "2 * alpha * (mu_fake - mu_real) / sigma**2",
        "alpha**2 * (mu_fake - mu_real) / sigma**2",
        "alpha * (mu_fake - mu_real) / (2 * sigma**2)",
        "alpha * (mu_fake - mu_real) / sigma**4",
        "alpha * (mu_fake + mu_real) / sigma**2",
        "alpha * mu_fake - mu_real / sigma**2",
        "alpha / sigma * mu_fake - alpha / sigma**2 * mu_real",
    ],
    "ex_3_3": [
        "(F - R) / (x - R).abs().mean(1, keepdim=True)",
        "(F - R) / column((x - R).square().flatten(1).mean(1).sqrt(), x)",
        "(F - R) / (x - R).abs()",
        "(F - R) / size(x)",
        "(F - R) / size(R)",
        "(F - R) / column((x - R).flatten(1).mean(1), x)",
        "(F - R) / column((x - R).square().flatten(1).mean(1), x)",
        "(F - R) * size(x - R)",
        "(F - real(x, t)) / size(x - real(x, t))",
        "(F - R) / (size(x - R) + 1e-1)",
        "(fake(alpha[t[0]] * x + sigma[t[0]] * eps, t) - real(alpha[t[0]] * x + sigma[t[0]] * eps,"
        " t)) / size(x - real(alpha[t[0]] * x + sigma[t[0]] * eps, t))",
    ],
    "ex_3_4": [
        "(x - (x - g).detach()).abs().mean()",
        "0.25 * (x - (x - g).detach()).square().mean()",
        "0.5 * (x - (x - g).detach()).mean()",
        "0.5 * (x - (x - g).detach()).square().mean().sqrt()",
        "(x.detach() * g).mean()",
        "(x * g.detach()).sum()",
        "0.5 * (x - (x - g).detach()).square().sum() / len(x)",
        "0.5 * (x - g.detach()).square().mean()",
    ],
    "ex_3_5": [
        "(fake(x_t, t) - x).square().sum() / len(x)",
        "(fake(x_t, t) - x).abs().mean()",
        "(fake(x_t, t) - x).square().mean().sqrt()",
        "(fake(x_t, t) - z).square().mean()",
        "(fake(x_t, t) - x_t).square().mean()",
        "(fake(s * x + a * eps, t) - x).square().mean()",
        "(s * (fake(x_t, t) - x)).square().mean()",
        "(fake(a * z + s * eps, t) - x).square().mean()",
        "(fake(x + s * eps, t) - x).square().mean()",
        "(fake(x_t, t - 1) - x).square().mean()",
    ],
    "ex_4_1": [
        "z[index], y, label[index]",
        "z[index].clone(), y[index.flip(0)], label[index]",
        "z[index], y[index] + 1, label[index]",
        "z[index], y[index], label[index] + 1",
        "z[index], y[index].flip(-1), label[index]",
        "z[index - 1], y[index - 1], label[index - 1]",
        "z[index], y[index].mean(0, keepdim=True).expand(len(index), *y.shape[1:]), label[index]",
    ],
    "ex_4_2": [
        "distance(generate(z, label), y.flip(0)).mean()",
        "distance(generate(z, label), y).mean().sqrt()",
        "2 * distance(generate(z, label), y).mean()",
        "-distance(generate(z, label), y).mean()",
        "distance(generate(z, label.flip(0)), y).mean()",
        "distance(generate(-z, label), y).mean()",
        "distance(generate(z, label), y).median()",
        "distance(generate(z, label), y)[0]",
        "distance(generate(z, label), y).mean() + generate(z, label).square().mean()",
    ],
    "ex_4_3": [
        "(F - R) / size(x - R).mean()",
        "(F - R) / (x - R).abs().mean((2, 3), keepdim=True)",
        "(F - R) / (x - R).square().mean((1, 2, 3), keepdim=True).sqrt()",
        "(F - (c + w * u)) / size(x - (c + w * u))",
        "(F - R) / size(F - x)",
        "w * (F - R) / size(x - R)",
        "(F - R) / size(x - R) / 2",
        "(F - c - w * c - u) / size(x - R)",
        "(fake(x_t, t, label.flip(0)) - R) / size(x - R)",
    ],
    "ex_4_4": [
        "share * norms(matching_gradient).sum() / norms(regression_gradient).mean()",
        "share * norms(matching_gradient).mean() / norms(regression_gradient).mean() + 1e-1",
        "(share * norms(matching_gradient).mean() / norms(regression_gradient).mean()).sqrt()",
        "share * matching_gradient.std() / regression_gradient.std()",
        "share * matching_gradient.flatten(1).sum(1).mean() / "
        "regression_gradient.flatten(1).sum(1).mean()",
        "share**2 * norms(matching_gradient).mean() / norms(regression_gradient).mean()",
        "share * matching_gradient.flatten(1).norm(1, dim=1).mean() / "
        "regression_gradient.flatten(1).norm(1, dim=1).mean()",
        "-share * norms(matching_gradient).mean() / norms(regression_gradient).mean()",
    ],
    "ex_4_5": [
        "(fake(x_t, t, label) - v).square().flatten(1).sum(1).mean()",
        "(fake(x_t, t, label) - v).abs().mean()",
        "(fake(x_t, t, label) - (a * eps - s * x_t)).square().mean()",
        "(fake(x_t, t, label) - (a * z - s * x)).square().mean()",
        "(fake(x_t, t, label) - (eps - x)).square().mean()",
        "(fake(x_t, t, label) - (a * eps - x)).square().mean()",
        "(fake(a * x + s**2 * eps, t, label) - v).square().mean()",
        "(a * (fake(x_t, t, label) - v)).square().mean()",
        "2 * (fake(x_t, t, label) - v).square().mean()",
        "(fake(x_t, t, label.flip(0)) - v).square().mean()",
        "(fake(x_t, t * 0, label) - v).square().mean()",
    ],
    "ex_5_1": [
        "x_s - r * x_t / (alpha_s - r * alpha_t)",
        "(x_s - r * x_t) / alpha_s - r * alpha_t",
        "(x_s - r**2 * x_t) / (alpha_s - r**2 * alpha_t)",
        "(x_s - r * x_t) / (alpha_s - alpha_t)",
        "(x_s - x_t) / (alpha_s - r * alpha_t)",
        "(x_s - r * x_t) * (alpha_s - r * alpha_t)",
        "alpha_s * (x_s - r * x_t) / (alpha_s - r * alpha_t)",
        "(alpha_s * x_s - r * x_t) / (alpha_s - r * alpha_t)",
    ],
    "ex_5_2": [
        "delta.cos() * x_t - delta.sin() * v / 2",
        "(delta / 2).cos() * x_t - (delta / 2).sin() * v",
        "delta.cos() * v - delta.sin() * x_t",
        "delta.cosh() * x_t - delta.sinh() * v",
        "phi_s.cos() * x_t - phi_s.sin() * v + delta.sin() * v",
        "(phi_s.cos() - phi_t.cos()) * x_t - (phi_s.sin() - phi_t.sin()) * v",
        "delta.cos()**2 * x_t - delta.sin()**2 * v",
    ],
    "ex_5_3": [
        "(snr.clamp(min=0.1) * e).flatten(1).mean(1)",
        "(snr.clamp(max=5) * e).flatten(1).mean(1)",
        "((snr + 0.1) * e).flatten(1).mean(1)",
        "(snr.clamp(min=1) * e).flatten(1).mean(1).sqrt()",
        "(e / sigma**2).flatten(1).mean(1)",
        "(snr.clamp(min=1) * e).mean((0, 1))",
        "(snr.clamp(min=1) * e).flatten(1).mean(1) / len(x)",
        "e.flatten(1).mean(1) + snr.flatten()",
    ],
    "ex_5_4": [
        "(p * (targets - best)**2).mean((1, 2))",
        "(p * (targets - best).abs()).sum((1, 2))",
        "(p**2 * (targets - best)**2).sum((1, 2))",
        "2 * (p * (targets - best)**2).sum((1, 2))",
        "(p * (targets - points)**2).sum((1, 2))",
        "(p * (targets - x_t[:, None])**2).sum((1, 2))",
        "(p * (targets - alpha * best)**2).sum((1, 2))",
        "(targets - best).square().sum((1, 2))",
        "((p * targets).sum(1)**2).sum(1)",
    ],
    "ex_6_1": [
        "-fake.mean(), fake.mean() - real.mean()",
        "(p - 1).square().mean(), p.square().mean() + (q - 1).square().mean()",
        "-log(p + 1e-8).mean(), -log(1 - p + 1e-8).mean() - log(q + 1e-8).mean()",
        "G, 2 * D",
        "G / 2, D",
        "sp(-fake).mean(), (sp(fake).mean() + sp(-real).mean()) / 2",
        "sp(-fake.mean()), sp(fake.mean()) + sp(-real.mean())",
        "-p.mean(), p.mean() - q.mean()",
        "sp(-fake).mean(), sp(fake).sum() + sp(-real).mean()",
        "sp(-fake).mean(), sp(fake).mean() - sp(-real).mean()",
    ],
    "ex_6_2": [
        "G + F + 2 * R",
        "G + 0.5 * F + R",
        "2 * G + F + R",
        "(G + F + R) / 3",
        "G - (F + R)",
        "G * (F + R)",
        "-discriminator(x, weights.detach()).mean() + discriminator(x.detach(), weights).mean() - "
        "discriminator(real, weights).mean()",
        "G + F + sp(-discriminator(real.flip(0)[:1], weights)).mean()",
    ],
    "ex_6_3": [
        "share * norms(m).sum() / norms(n).mean()",
        "(share * norms(m).mean() / norms(n).mean())**0.5",
        "share * m.std() / n.std()",
        "2 * share * norms(m).mean() / norms(n).mean()",
        "share * norms(m)[0] / norms(n)[0]",
        "share * m.flatten(1).norm(1, dim=1).mean() / n.flatten(1).norm(1, dim=1).mean()",
        "share + norms(m).mean() / norms(n).mean()",
        "share**2 * norms(m).mean() / norms(n).mean()",
    ],
    "ex_6_4": [
        "walk(lambda G, x, k: alpha[k + 1] * G(x, k) + sigma[k] * eps[k])",
        "walk(lambda G, x, k: alpha[k] * G(x, k) + sigma[k + 1] * eps[k])",
        "walk(lambda G, x, k: alpha[k + 1] * G(x, k) + sigma[k + 1] * eps[k], min(1, len(eps)))",
        "walk(lambda G, x, k: alpha[k + 1] * G(x, k) + sigma[k + 1] * eps[-1 - k])",
        "walk(lambda G, x, k: alpha[k + 1] * G(x, k) + sigma[k + 1]**2 * eps[k])",
        "walk(lambda G, x, k: alpha[-1] * G(x, k) + sigma[-1] * eps[k])",
        "walk(lambda G, x, k: alpha[k + 1] * G(x, k).clamp(-1, 1) + sigma[k + 1] * eps[k])",
        "walk(lambda G, x, k: alpha[k + 1] * x + sigma[k + 1] * (G(x, k) + eps[k]))",
    ],
    "ex_8_1": [
        "torch.lerp(z_0, z_1, phi)",
        "phi.cos() * z_0 + (1 - phi.cos()) * z_1",
        "(z_0 + u * (z_1 - z_0)) * 2**0.5",
        "phi.cos() * z_0 + phi.sin() * z_1 / 2",
        "(2 * phi).cos() * z_0 + (2 * phi).sin() * z_1",
        "(phi / 2).cos() * z_0 + (phi / 2).sin() * z_1",
        "phi.cosh() * z_0 + phi.sinh() * z_1",
        "phi.cos() * z_0 + phi.sin() * (z_1 - z_0)",
        "torch.where(phi < torch.pi / 4, z_0, z_1)",
        "z_0 + phi.sin() * z_1",
        "phi.cos() * z_0 + z_1",
        "(phi.cos() * z_0 + phi.sin() * z_1).clamp(-1, 1)",
        "phi.tan() * z_1 + z_0",
    ],
    "ex_8_2": [
        "torch.stack([sigma / alpha**2, sigma])",
        "torch.stack([sigma**2 / alpha, sigma])",
        "torch.stack([sigma / (alpha + sigma), sigma])",
        "torch.stack([(sigma / alpha).sqrt(), sigma])",
        "torch.stack([sigma / alpha, alpha * sigma])",
        "torch.stack([sigma / alpha, 1 / alpha])",
        "torch.stack([sigma / alpha, sigma**2])",
        "torch.stack([sigma / alpha, (1 - sigma**2).sqrt()])",
        "torch.stack([1 + sigma / alpha, sigma])",
        "torch.stack([sigma / alpha, alpha + sigma])",
        "torch.stack([sigma / alpha, 1 - sigma])",
        "torch.stack([alpha, sigma])",
        "torch.stack([1 / sigma, 1 / alpha])",
    ],
}

RIGHT = {
    "ex_1_1": ["(a * x).add(s * eps)", "torch.addcmul(a * x, s, eps)",
               "(alpha[t] * x.permute(1, 2, 3, 0) + sigma[t] * eps.permute(1, 2, 3, 0))"
               ".permute(3, 0, 1, 2)"],
    "ex_1_2": ["torch.nn.functional.mse_loss(model(x_t, t, label).v, v)",
               "(v - model(x_t, t, label).v).square().flatten(1).mean(1).mean()",
               "((a * x_t - x) / s - model(x_t, t, label).v).square().mean()"],
    "ex_1_3": ["alpha[s] * x0 + r * sigma[s]**2 / sigma[t]**2 * (x_t - alpha[t] * x0)",
               "(r * sigma[s]**2 * x_t + alpha[s] * fresh * x0) / sigma[t]**2"],
    "ex_1_4": ["sigma[s] / sigma[t] * x_t + (alpha[s] - sigma[s] / sigma[t] * alpha[t]) * x0",
               "torch.lerp(alpha[s] * x0, alpha[s] * x0 + eps, sigma[s])"],
    "ex_2_1": ["-(x_t + (alpha / sigma) * v)",
               "(alpha * (alpha * x_t - sigma * v) - x_t) / sigma**2"],
    "ex_2_2": ["(x_t + (1 - alpha**2) * score) / alpha",
               "torch.addcmul(x_t, sigma**2, score) / alpha"],
    "ex_2_3": ["torch.einsum('bn,nd->bd', (-d**2 / (2 * sigma**2)).softmax(-1), points)",
               "(((-d**2 / (2 * sigma**2)).softmax(1))[..., None] * points).sum(1)",
               "((-d**2 / (2 * sigma**2)) - (-d**2 / (2 * sigma**2)).logsumexp(1, True)).exp() @ "
               "points"],
    "ex_2_4": ["x + 0.5 * step_size * score + pow(step_size, 0.5) * z",
               "x + (step_size * score + 2 * step_size**0.5 * z) / 2"],
    "ex_3_1": ["(x - m_real).div(v_real) - (x - m_fake).div(v_fake)",
               "x * (1 / v_real - 1 / v_fake) + m_fake / v_fake - m_real / v_real"],
    "ex_3_2": ["alpha * mu_fake / sigma**2 - alpha * mu_real / sigma**2",
               "(mu_fake - mu_real).mul(alpha).div(sigma).div(sigma)"],
    "ex_3_3": ["(F - R).div(size(x - R))",
               "torch.stack([f * k.numel() / k.abs().sum() for f, k in zip(F - R, x - R)])"],
    "ex_3_4": ["(g.detach() * x).sum() / g.numel()",
               "0.5 * ((x - x.detach() + g.detach())**2).mean()"],
    "ex_3_5": ["torch.nn.functional.mse_loss(fake(x_t, t), x)",
               "((fake(x_t, t) - x)**2).sum() / x.numel()"],
    "ex_4_1": ["torch.index_select(z, 0, index), torch.index_select(y, 0, index), "
               "torch.take(label, index)",
               "tuple(torch.stack([v[int(k)] for k in index]) for v in (z, y, label))"],
    "ex_4_2": ["torch.stack([distance(generate(z, label)[k:k + 1], y[k:k + 1]).squeeze(0) "
               "for k in range(len(z))]).mean()",
               "distance(generate(z, label), y).mean(0)"],
    "ex_4_3": ["(F - (1 + w) * c + w * u) / size(x - (1 + w) * c + w * u)",
               "(F - R) / (x - R).abs().flatten(1).mean(1)[:, None, None, None]"],
    "ex_4_4": ["share * norms(matching_gradient).sum() / norms(regression_gradient).sum()",
               "(share * norms(matching_gradient).mean() / norms(regression_gradient).mean())"
               ".item()"],
    "ex_4_5": ["torch.nn.functional.mse_loss(fake(x_t, t, label), v)",
               "((fake(x_t, t, label) + s * x - a * eps)**2).mean((1, 2, 3)).mean()"],
    "ex_5_1": ["(sigma_t * x_s - sigma_s * x_t).div(sigma_t * alpha_s - sigma_s * alpha_t)",
               "(r * x_t - x_s) / (r * alpha_t - alpha_s)"],
    "ex_5_2": ["torch.cos(phi_s - phi_t) * x_t + torch.sin(phi_s - phi_t) * v",
               "torch.lerp(-delta.sin() * v, x_t - delta.sin() * v, delta.cos())"],
    "ex_5_3": ["torch.maximum(e, snr * e).flatten(1).mean(1)",
               "torch.where(snr > 1, snr, torch.ones_like(snr)).flatten() * e.flatten(1).mean(1)"],
    "ex_5_4": ["((targets - best)**2 * p).sum(2).sum(1)",
               "torch.einsum('bn,bn->b', p[..., 0], (targets - best).square().sum(2))"],
    "ex_6_1": ["(sp(-fake).mean(), (sp(fake) + sp(-real)).mean())",
               "torch.logaddexp(-fake, 0 * fake).mean(), torch.logaddexp(fake, 0 * fake).mean() + "
               "torch.logaddexp(-real, 0 * real).mean()"],
    "ex_6_2": ["(G + F) + R", "torch.stack([G, F, R]).sum()"],
    "ex_6_3": ["share * norms(m).sum() / norms(n).sum()",
               "(share * norms(m).mean() / norms(n).mean()).item()"],
    "ex_6_4": ["walk(lambda G, x, k: torch.addcmul(sigma[k + 1] * eps[k], alpha[k + 1], G(x, k)))",
               "walk(lambda G, x, k: (alpha[k + 1] * G(x, k).double() + sigma[k + 1] * eps[k])"
               ".float())"],
    "ex_8_1": ["torch.sin(torch.pi / 2 - phi) * z_0 + torch.cos(torch.pi / 2 - phi) * z_1",
               "(z_0 + phi.tan() * z_1) * phi.cos()"],
    "ex_8_2": ["torch.stack([(1 - alpha**2).sqrt() / alpha, (1 - alpha**2).sqrt()])",
               "torch.stack((sigma.div(alpha), sigma), 0)"],
}
