// Turns the form of slices into a viewer: a change shows the slice at once, without loading the page.
const form = document.getElementById("slices");
const picture = document.getElementById("slice");
const index = form.elements.index;
const output = form.querySelector("output");
const axes = [...form.elements.axis.options].map((option) => option.value);
const counts = form.dataset.counts.split(",").map(Number);
const middles = form.dataset.middles.split(",").map(Number);
let loading = false;
let again = false;

function show() {
  output.textContent = index.value;
  if (loading) { again = true; return; }
  loading = true;
  picture.src = `${form.dataset.slice}?${new URLSearchParams(new FormData(form))}`;
}

function loaded() {
  loading = false;
  if (again) { again = false; show(); }
}

picture.addEventListener("load", loaded);
picture.addEventListener("error", loaded);
form.addEventListener("input", (event) => {
  if (event.target === form.elements.axis) {
    const number = axes.indexOf(form.elements.axis.value);
    index.max = counts[number] - 1;
    index.value = middles[number];
  }
  show();
});
form.addEventListener("submit", (event) => { event.preventDefault(); show(); });
picture.addEventListener("wheel", (event) => {
  event.preventDefault();
  index.value = Number(index.value) + (event.deltaY < 0 ? 1 : -1);
  show();
}, { passive: false });
