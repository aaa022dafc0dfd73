// A slide is 1280 x 720 and scaled as a whole, so what fits here fits every screen.
const dark = matchMedia("(prefers-color-scheme: dark)");
const root = document.documentElement;
function paint(theme) { root.dataset.theme = theme; }
paint(dark.matches ? "dark" : "light");
dark.addEventListener("change", () => paint(dark.matches ? "dark" : "light"));
Reveal.initialize({
  width: 1280, height: 720, margin: 0.02, center: false, hash: true, transition: "none", backgroundTransition: "none",
  slideNumber: "c/t", pdfSeparateFragments: false, scrollActivationWidth: null, plugins: [RevealNotes],
  keyboard: { 68: () => paint(root.dataset.theme === "dark" ? "light" : "dark") },
});
Reveal.addKeyBinding({ keyCode: 68, key: "D", description: "Light or dark" }, () => {});
