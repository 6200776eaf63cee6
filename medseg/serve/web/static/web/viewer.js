// Three planes by NiiVue, loaded when a user opens them: drawing takes a graphics card, or patience.
const part = document.getElementById("three");
const words = document.getElementById("three-words");
const boxes = [...document.querySelectorAll("#slices [name=show]")];
let begun = false;

function labelMap() {
  const channel = (place) => [0, ...boxes.map((box) => parseInt(box.dataset.colour.slice(place, place + 2), 16))];
  return {
    R: channel(1), G: channel(3), B: channel(5),
    A: [0, ...boxes.map((box) => (box.checked ? 255 : 0))],
    I: [0, ...boxes.map((_, number) => number + 1)],
    labels: ["", ...boxes.map((box) => box.dataset.name)],
  };
}

async function open() {
  const { Niivue, SHOW_RENDER } = await import("./vendor/niivue.js");
  const viewer = new Niivue({
    isRadiologicalConvention: true, multiplanarShowRender: SHOW_RENDER.NEVER, backColor: [0, 0, 0, 1],
    loadingText: "", dragAndDropEnabled: false, isAntiAlias: false, crosshairWidth: 0.5, crosshairColor: [1, 0.8, 0.2, 0.7],
  });
  await viewer.attachTo("canvas");
  const fused = document.querySelector("#slices [name=fused]");
  const { pet, petLow, petHigh } = part.dataset;
  const suv = { url: pet, name: "pet.nii.gz", colormap: "hot", opacity: 0.5, cal_min: Number(petLow), cal_max: Number(petHigh) };
  await viewer.loadVolumes([
    { url: part.dataset.image, name: "image.nii.gz" },
    ...(pet ? [suv] : []),
    { url: part.dataset.labels, name: "labels.nii.gz", opacity: 0.5 },
  ]);
  const image = viewer.volumes[0];
  const last = viewer.volumes.length - 1;
  const labels = viewer.volumes[last];
  const showPet = () => viewer.setOpacity(1, fused.checked ? 0.5 : 0);
  if (pet) { showPet(); fused.addEventListener("change", showPet); }
  const choice = document.querySelector("#slices [name=window]");
  const window_ = () => {
    const { low, high } = choice.selectedOptions[0].dataset;
    [image.cal_min, image.cal_max] = [Number(low), Number(high)];
    viewer.updateGLVolume();
  };
  window_();
  choice.addEventListener("change", window_);
  const colour = () => { labels.setColormapLabel(labelMap()); viewer.updateGLVolume(); };
  colour();
  for (const box of boxes) box.addEventListener("change", colour);
  document.getElementById("three-opacity").addEventListener("input", (event) => viewer.setOpacity(last, Number(event.target.value)));
}

part.addEventListener("toggle", async () => {
  if (!part.open || begun) return;
  begun = true;
  words.textContent = part.dataset.loading;
  try {
    await open();
    words.textContent = "";
    part.dataset.drawn = "yes";
  } catch (error) {
    words.textContent = `${part.dataset.problem} ${error.message}`;
  }
});
