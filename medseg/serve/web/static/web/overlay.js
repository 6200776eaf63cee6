// How strongly the overlay shows, which structures of it, and boxes from which score on.
const strength = document.getElementById("opacity");
const layers = document.querySelectorAll("#stack .layer");
const least = document.getElementById("least");

function show() {
  for (const layer of layers) {
    const box = document.querySelector(`[data-toggles="${layer.dataset.layer}"]`);
    layer.style.opacity = box && !box.checked ? 0 : strength.value;
  }
}

strength?.addEventListener("input", show);
for (const box of document.querySelectorAll("[data-toggles]")) box.addEventListener("change", show);
least?.addEventListener("input", () => {
  document.querySelector("output[for=least]").textContent = least.value;
  for (const part of document.querySelectorAll("[data-score]")) {
    part.style.display = Number(part.dataset.score) < Number(least.value) ? "none" : "";
  }
});
