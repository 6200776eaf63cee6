// Three planes by NiiVue, loaded when a user opens them: drawing takes a graphics card, or patience.
const part = document.getElementById("three");
const words = document.getElementById("three-words");
const colours = [...document.querySelectorAll("data.structure-colour")].map((one) => one.value);
let begun = false;

function colourMap(hex) {
  const [r, g, b] = [1, 3, 5].map((place) => parseInt(hex.slice(place, place + 2), 16));
  return { R: [0, r], G: [0, g], B: [0, b], A: [0, 255], I: [0, 255] };
}

async function open() {
  const { Niivue, SHOW_RENDER } = await import("./vendor/niivue.js");
  const viewer = new Niivue({
    isRadiologicalConvention: true, multiplanarShowRender: SHOW_RENDER.NEVER, backColor: [0, 0, 0, 1], show3Dcrosshair: false,
    loadingText: part.dataset.loading, dragAndDropEnabled: false,
  });
  await viewer.attachTo("canvas");
  const volumes = [{ url: part.dataset.image, name: "image.nii.gz" }];
  for (let number = 1; number <= Number(part.dataset.masks); number += 1) {
    const name = `mask_${String(number).padStart(3, "0")}.nii.gz`;
    const colour = `structure${number}`;
    viewer.addColormap(colour, colourMap(colours[number - 1]));
    volumes.push({ url: part.dataset.mask.replace("mask_000.nii.gz", name), name, colormap: colour, opacity: 0.5, cal_min: 0, cal_max: 1 });
  }
  await viewer.loadVolumes(volumes);
  document.getElementById("three-opacity").addEventListener("input", (event) => {
    for (let number = 1; number < viewer.volumes.length; number += 1) viewer.setOpacity(number, Number(event.target.value));
  });
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
