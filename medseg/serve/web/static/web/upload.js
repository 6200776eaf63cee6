// Sends files in pieces, shows how far it is, and goes on where it stopped: after a break of the network by
// itself, after the page was closed when the same files are chosen again.
const form = document.getElementById("upload");
const drop = document.getElementById("drop");
const chosen = document.getElementById("chosen");
const problem = document.getElementById("problem");
const bar = document.getElementById("bar");
const share = document.getElementById("share");
const words = form.dataset;
const token = form.querySelector("[name=csrfmiddlewaretoken]").value;
const MOST_TRIES = 6;
let files = [];

document.documentElement.classList.add("has-scripts");
for (const part of form.querySelectorAll("label.scripted")) part.hidden = false;
document.getElementById("folder").hidden = false;

function take(list) {
  files = list;
  const size = files.reduce((sum, file) => sum + file.size, 0);
  chosen.textContent = `${files.length} ${words.chosen}, ${(size / 2 ** 20).toFixed(1)} MB`;
}

for (const id of ["files", "folder"]) {
  document.getElementById(id).addEventListener("change", (event) => take([...event.target.files]));
}
form.querySelector("#files").required = false;

async function inEntry(entry) {
  if (entry.isFile) return [await new Promise((done, fail) => entry.file(done, fail))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    // A directory is read in batches, of which an empty one is the last.
    const batch = await new Promise((done, fail) => reader.readEntries(done, fail));
    if (!batch.length) return found;
    for (const one of batch) found.push(...(await inEntry(one)));
  }
}

drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", async (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const found = [];
  for (const entry of entries) found.push(...(await inEntry(entry)));
  take(found);
});

async function call(url, options = {}) {
  const headers = { "X-CSRFToken": token, ...(options.headers ?? {}) };
  return fetch(url, { credentials: "same-origin", ...options, headers });
}

async function answer(response) {
  const said = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(said.error ?? `HTTP ${response.status}`);
  return said;
}

const keyOf = () => JSON.stringify(files.map((file) => [file.webkitRelativePath || file.name, file.size, file.lastModified]));

async function begun() {
  const kept = JSON.parse(localStorage.getItem("medseg-upload") ?? "null");
  if (kept?.key === keyOf()) {
    const response = await call(`${words.begin}${kept.id}/`);
    if (response.ok) {
      share.textContent = words.resumed;
      return { ...kept, sizes: (await response.json()).sizes };
    }
  }
  const body = JSON.stringify({
    title: form.querySelector("#title").value,
    deidentify: form.querySelector("#deidentify")?.checked ?? false,
    names: files.map((file) => file.webkitRelativePath || file.name),
    sizes: files.map((file) => file.size),
  });
  const said = await answer(await call(words.begin, { method: "POST", body }));
  const kept_now = { id: said.id, chunk: said.chunk_bytes, key: keyOf() };
  localStorage.setItem("medseg-upload", JSON.stringify(kept_now));
  return { ...kept_now, sizes: files.map(() => 0) };
}

async function piece(upload, number, offset) {
  const body = files[number].slice(offset, offset + upload.chunk);
  for (let tried = 1; ; tried += 1) {
    try {
      const response = await call(`${words.begin}${upload.id}/${number}/${offset}`, {
        method: "POST", body, headers: { "Content-Type": "application/octet-stream" },
      });
      if (response.status === 409) return (await response.json()).size;
      if (response.status < 500 || response.status === 507) return (await answer(response)).size;
      throw new TypeError(`HTTP ${response.status}`);
    } catch (error) {
      if (!(error instanceof TypeError) || tried >= MOST_TRIES) throw error;
      share.textContent = words.again;
      await new Promise((done) => setTimeout(done, 500 * 2 ** tried));
    }
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  problem.hidden = true;
  if (!files.length) { form.querySelector("#files").focus(); return; }
  const button = form.querySelector("button");
  button.disabled = true;
  document.getElementById("going").hidden = false;
  try {
    const upload = await begun();
    const total = Math.max(1, files.reduce((sum, file) => sum + file.size, 0));
    let sent = upload.sizes.reduce((sum, size) => sum + size, 0);
    for (let number = 0; number < files.length; number += 1) {
      let offset = upload.sizes[number];
      while (offset < files[number].size) {
        const now = await piece(upload, number, offset);
        sent += now - offset;
        offset = now;
        bar.value = sent / total;
        share.textContent = `${Math.floor((100 * sent) / total)} %`;
      }
    }
    share.textContent = words.sorting;
    const said = await answer(await call(`${words.begin}${upload.id}/finish`, { method: "POST" }));
    localStorage.removeItem("medseg-upload");
    location.assign(said.url);
  } catch (error) {
    if (!(error instanceof TypeError)) localStorage.removeItem("medseg-upload");
    problem.textContent = `${words.failed} ${error.message}`;
    problem.hidden = false;
    button.disabled = false;
  }
});
