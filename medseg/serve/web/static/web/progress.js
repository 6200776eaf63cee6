// Asks where the job stands and loads the page anew when that changes for good.
const job = document.getElementById("job");
const words = document.getElementById("words");
const UNFINISHED = ["waiting", "running"];

async function ask() {
  let wait = 2000;
  try {
    const response = await fetch(job.dataset.progress, { credentials: "same-origin" });
    const said = await response.json();
    if (said.state !== job.dataset.state) { location.reload(); return; }
    if (said.state === "waiting") {
      const begins = said.wait_s === null ? "" : `, ${job.dataset.wait.replace("{s}", said.wait_s)}`;
      words.textContent = `${job.dataset.position} ${said.position}${begins}`;
      wait = Math.min(1000 * (1 + said.position), 10000);
    }
  } catch {
    wait = 10000; // the server is being restarted, or the network is away
  }
  setTimeout(ask, wait);
}

if (UNFINISHED.includes(job.dataset.state)) setTimeout(ask, 1500);
