// How strongly the overlay shows, and which structures of it.
const strength = document.getElementById("opacity");
const layers = document.querySelectorAll("#stack .layer");

function show() {
  for (const layer of layers) {
    const box = document.querySelector(`[data-toggles="${layer.dataset.layer}"]`);
    layer.style.opacity = box && !box.checked ? 0 : strength.value;
  }
}

strength?.addEventListener("input", show);
for (const box of document.querySelectorAll("[data-toggles]")) box.addEventListener("change", show);
