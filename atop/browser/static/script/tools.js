// What several pages use: long tasks with their progress, menus, dropping files on a page, references.

// Follows a task of the server until it ends. Resolves to its result; `shown` is called with each state.
Atop.follow = async (job, shown = () => {}) => {
  for (let wait = 60; ; wait = Math.min(wait * 1.5, 500)) {
    shown(job);
    if (job.state === "done") return job.result;
    if (job.state === "failed") throw new Atop.Problem(409, { message: job.message });
    await new Promise((resolve) => setTimeout(resolve, wait));
    job = await Atop.request("GET", `/api/jobs/${job.job}`);
  }
};

// Follows a task in a message at the foot of the page. `promise` gives the task.
Atop.task = async (label, promise) => {
  const bar = Atop.element("progress", { max: "100", "aria-label": label });
  const toast = Atop.toast(label, { seconds: 86400 });
  toast.querySelector(".toast-text").append(bar);
  try {
    return await Atop.follow(await promise, (job) => {
      if (job.total) bar.value = (100 * job.done) / job.total;
    });
  } finally {
    toast.remove();
  }
};

// A menu below a button: `lines` is a list of {label, run, danger}, or null for a rule.
Atop.menu = (button, lines) => {
  const close = (back) => {
    menu.remove();
    button.setAttribute("aria-expanded", "false");
    document.removeEventListener("pointerdown", outside, true);
    if (back) button.focus();
  };
  const outside = (event) => { if (!menu.contains(event.target)) close(false); };
  const menu = Atop.element("div", { role: "menu", class: "menu" });
  for (const line of lines) {
    if (!line) { menu.append(Atop.element("hr")); continue; }
    const run = () => { close(true); line.run(); };
    menu.append(Atop.element("button", { type: "button", role: "menuitem", class: line.danger ? "danger" : null, click: run }, line.label));
  }
  menu.addEventListener("keydown", (event) => {
    const items = [...menu.querySelectorAll("button")];
    const here = items.indexOf(document.activeElement);
    const step = { ArrowDown: here + 1, ArrowUp: here - 1, Home: 0, End: items.length - 1 }[event.key];
    if (step !== undefined) { items[(step + items.length) % items.length].focus(); event.preventDefault(); }
    if (event.key === "Escape") close(true);
    if (event.key === "Tab") close(false);
  });
  button.after(menu);
  const space = document.documentElement.clientWidth - button.getBoundingClientRect().left;
  menu.classList.toggle("right", space < menu.offsetWidth + 16);
  button.setAttribute("aria-expanded", "true");
  document.addEventListener("pointerdown", outside, true);
  menu.querySelector("button").focus();
};

// Sends a file; resolves to the answer. `shown` is called with the part that is sent, from 0 to 1.
Atop.upload = (path, file, shown = () => {}) => new Promise((resolve, reject) => {
  const request = new XMLHttpRequest();
  request.open("POST", `${Atop.base}${path}?name=${encodeURIComponent(file.name)}`);
  request.setRequestHeader("accept", "application/json");
  request.setRequestHeader("content-type", file.type || "application/octet-stream");
  request.upload.onprogress = (event) => shown(event.total ? event.loaded / event.total : 0);
  request.onerror = () => reject(new Atop.Problem(0, { message: "The file was not sent: the program does not answer." }));
  request.onload = () => {
    let answer = {};
    try { answer = JSON.parse(request.responseText); } catch { answer = { message: "The answer cannot be read." }; }
    if (request.status < 300) resolve(answer);
    else reject(new Atop.Problem(request.status, answer));
  };
  request.send(file);
});

// Imports files one after the other, and says what became of them.
Atop.importFiles = async (files) => {
  for (const file of files) {
    try {
      const sent = Atop.upload("/api/import", file);
      const done = await Atop.task(`Importing ${file.name}`, sent);
      const parts = ["added", "updated", "unchanged", "skipped", "incomplete"].filter((part) => done[part]);
      const words = parts.map((part) => `${Atop.count(done[part])} ${part}`).join(", ") || "nothing in it";
      const action = done.named.length ? { label: "What was skipped", run: () => Atop.showSkipped(file.name, done) } : null;
      Atop.toast(`${file.name}: ${words}.`, { action, seconds: 20 });
      if (Atop.refresh) Atop.refresh();
    } catch (error) {
      Atop.tell(error);
    }
  }
};

Atop.showSkipped = (name, done) => {
  const list = Atop.element("ul");
  for (const { line, reason } of done.named) list.append(Atop.element("li", {}, `${line ? `Line ${line}: ` : ""}${reason}`));
  const more = done.skipped + done.incomplete - done.named.length;
  if (more > 0) list.append(Atop.element("li", {}, `and ${Atop.count(more)} more`));
  return Atop.ask({ title: `Left out of ${name}`, body: list, button: "Close" });
};

Atop.chooseFiles = () => {
  const input = Atop.element("input", { type: "file", multiple: true, accept: ".vcf,.ics,.mbox,.csv,.jsonl,.eml" });
  input.addEventListener("change", () => Atop.importFiles(input.files));
  input.click();
};

// A file that is dropped on a page is imported, unless what it is dropped on takes it itself.
Atop.takeDrops = () => {
  let depth = 0;
  const carries = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
  const show = (on) => document.body.classList.toggle("dropping", on);
  document.addEventListener("dragenter", (event) => { if (carries(event)) { depth += 1; show(true); } });
  document.addEventListener("dragleave", (event) => { if (carries(event) && (depth -= 1) <= 0) { depth = 0; show(false); } });
  document.addEventListener("dragover", (event) => { if (carries(event)) event.preventDefault(); });
  document.addEventListener("drop", (event) => {
    depth = 0;
    show(false);
    if (!carries(event) || event.defaultPrevented) return;
    event.preventDefault();
    Atop.importFiles(event.dataTransfer.files);
  });
};

// A field with a label, for dialogs.
Atop.field = (label, input) => Atop.element("label", { class: "field" }, Atop.element("span", {}, label), input);
