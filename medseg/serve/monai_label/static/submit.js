// MONAI Label's panel in OHIF contours, and has no button that submits what was corrected. This one does: the
// segmentation as one byte a voxel, with the names of its segments, to the server that the page came from.
"use strict";

(() => {
  const SEGMENTATION = "1"; // as the panel calls its own
  const HERE = document.currentScript.src;
  const button = document.createElement("button");
  const words = document.createElement("span");
  const bar = document.createElement("div");
  button.id = "medseg-submit";
  button.textContent = "Submit label";
  bar.style.cssText =
    "position:fixed;right:16px;bottom:16px;z-index:1000;display:none;gap:12px;align-items:center;" +
    "padding:8px 12px;border-radius:6px;background:#041c4a;color:#fff;font:14px sans-serif";
  button.style.cssText = "padding:6px 14px;border:0;border-radius:4px;background:#00a4d9;color:#fff;font:inherit";
  words.id = "medseg-said";
  bar.append(words, button);

  function drawn() {
    const { segmentationService, viewportGridService, displaySetService } = window.services || {};
    const segmentation = segmentationService?.getSegmentation(SEGMENTATION);
    const volume = segmentation && segmentationService.getLabelmapVolume(SEGMENTATION);
    if (!volume) return null;
    const { viewports, activeViewportId } = viewportGridService.getState();
    const shown = viewports.get(activeViewportId).displaySetInstanceUIDs[0];
    const series = displaySetService.getDisplaySetByUID(shown).SeriesInstanceUID;
    return { segmentation, series, voxels: volume.voxelManager.getCompleteScalarDataArray() };
  }

  async function submit() {
    const { segmentation, series, voxels } = drawn();
    const present = new Set(voxels);
    const info = Object.values(segmentation.segments)
      .filter((segment) => present.has(segment.segmentIndex))
      .map((segment) => ({ name: segment.label, idx: segment.segmentIndex }));
    if (!info.length) throw new Error("nothing is drawn yet.");
    const form = new FormData();
    form.append("params", JSON.stringify({ label_info: info }));
    form.append("label", new Blob([Uint8Array.from(voxels)]), "label.bin");
    const address = `../datastore/label?image=${encodeURIComponent(series)}`;
    const answer = await fetch(new URL(address, HERE), { method: "PUT", body: form });
    const said = await answer.json();
    if (!answer.ok) throw new Error(said.detail);
    if (said.store_error) return `kept as ${said.label}, but not stored: ${said.store_error}`;
    return `kept as ${said.label}`;
  }

  button.addEventListener("click", async () => {
    button.disabled = true;
    words.textContent = "submitting …";
    try {
      words.textContent = await submit();
    } catch (error) {
      words.textContent = `not submitted: ${error.message}`;
    }
    button.disabled = false;
  });

  document.addEventListener("DOMContentLoaded", () => document.body.append(bar));
  setInterval(() => {
    bar.style.display = drawn() ? "flex" : "none";
  }, 1000);
})();
