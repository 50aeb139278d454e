// Editors of values by kind. `Editor(tree)` makes one from what the server says of a value (trees.py); its `read()` is
// what is sent back (reading.py).
const KINDS = {
  str: "Text", int: "Whole number", float: "Number", decimal: "Decimal number", bool: "Yes or no", date: "Date",
  datetime: "Date and time", time: "Time of day", timedelta: "Duration", ref: "Another item", file: "File",
  list: "List", set: "Set", dict: "Names and values", tuple: "Tuple", frozenset: "Frozen set", uuid: "UUID",
  bytes: "Bytes", json: "Typed JSON", none: "None",
};
const PLACEHOLDERS = { int: "42", float: "4.2", decimal: "4.20", time: "09:30", timedelta: "1 d 02:30:00", bytes: "0a ff 10", uuid: "123e4567-e89b-12d3-a456-426614174000", datetime: "2024-05-31 09:30+02:00" };

// An editor with a choice of the kind above it: {element, read, focus}.
// With `plainly`, a text stays one: the names in a dict are mostly just that.
Atop.editor = (tree, { label = "Value", plainly = false } = {}) => {
  const kind = tree.k === "enum" || tree.k === "value" ? "json" : tree.k;
  const select = Atop.element("select", { class: "kind", "aria-label": `Kind of ${label}` }, ...Object.entries(KINDS).map(([name, text]) => Atop.element("option", { value: name }, text)));
  select.value = kind;
  const place = Atop.element("div", { class: "editor-place" });
  let inner;
  const show = (next) => {
    inner = Atop.editors[next.k](next, label);
    place.replaceChildren(inner.element);
  };
  select.addEventListener("change", () => {
    show(converted(inner, select.value));
    inner.focus();
  });
  show({ ...tree, k: kind, t: kind === "json" && tree.json ? tree.json : tree.t });
  return {
    element: Atop.element("div", { class: "editor" }, place, plainly && kind === "str" ? null : select),
    read: () => inner.read(),
    focus: () => inner.focus(),
  };
};

// The same value, as far as it can be, as another kind.
function converted(inner, kind) {
  const was = inner.read();
  const tree = { k: kind, t: typeof was.text === "string" ? was.text : "", items: [], entries: [] };
  const texts = (was.items || []).map((one) => one.text).filter((text) => typeof text === "string");
  if (["list", "set", "tuple", "frozenset"].includes(kind)) {
    tree.items = was.items ? was.items.map((one) => ({ k: one.kind, t: one.text || "", ...one })) : tree.t ? tree.t.split(/\n|, /).map((text) => ({ k: "str", t: text })) : [];
  } else if (texts.length) tree.t = texts.join(", ");
  return tree;
}

const plain = (kind, input) => ({ element: input, read: () => ({ kind, text: input.value }), focus: () => input.focus() });

Atop.editors = {
  none: () => {
    const note = Atop.element("span", { class: "none", tabindex: "-1" }, "none");
    return { element: note, read: () => ({ kind: "none" }), focus: () => note.focus() };
  },

  str: (tree, label) => {
    const input = Atop.element("textarea", { rows: String(Math.min(16, Math.max(1, tree.t.split("\n").length, Math.ceil(tree.t.length / 60)))), "aria-label": label, dir: "auto" });
    input.value = tree.t;
    return plain("str", input);
  },

  bool: (tree, label) => {
    const select = Atop.element("select", { "aria-label": label }, Atop.element("option", { value: "true" }, "yes"), Atop.element("option", { value: "false" }, "no"));
    select.value = tree.t === "true" ? "true" : "false";
    return plain("bool", select);
  },

  date: (tree, label) => {
    const input = Atop.element("input", { type: "date", min: "0001-01-01", max: "9999-12-31", "aria-label": label });
    input.value = tree.t.slice(0, 10);
    return plain("date", input);
  },

  ref: (tree, label) => Atop.itemChooser(tree, label),

  file: (tree, label) => {
    let file = tree.digest ? { digest: tree.digest, size: tree.size, name: tree.name, media_type: tree.media_type } : null;
    const shown = Atop.element("span", { role: "status" });
    const say = () => { shown.textContent = file ? `${file.name || "file"}, ${Atop.size(file.size)}` : "Choose a file, or drop one here."; };
    const input = Atop.element("input", { type: "file", "aria-label": label });
    const send = async (chosen) => {
      try {
        file = (await Atop.upload("/api/files", chosen, (part) => { shown.textContent = `Sending ${chosen.name}: ${Math.round(100 * part)} %`; })).file;
        say();
      } catch (error) { shown.textContent = error.message; }
    };
    input.addEventListener("change", () => { if (input.files[0]) send(input.files[0]); });
    const box = Atop.element("div", { class: "file-drop" }, shown, input);
    box.addEventListener("dragover", (event) => event.preventDefault());
    box.addEventListener("drop", (event) => {
      event.preventDefault();
      if (event.dataTransfer.files[0]) send(event.dataTransfer.files[0]);
    });
    say();
    return { element: box, read: () => (file ? { kind: "json", text: JSON.stringify({ $file: file }) } : { kind: "none" }), focus: () => input.focus() };
  },

  dict: (tree, label) => collection("dict", tree.entries || [], label),

  json: (tree, label) => {
    const input = Atop.element("textarea", { rows: "4", class: "mono", "aria-label": label, spellcheck: "false" });
    input.value = tree.t;
    return plain("json", input);
  },
};
for (const kind of ["int", "float", "decimal", "time", "timedelta", "uuid", "bytes", "datetime"]) {
  Atop.editors[kind] = (tree, label) => {
    const input = Atop.element("input", { type: "text", inputmode: ["int", "float", "decimal"].includes(kind) ? "decimal" : null, placeholder: PLACEHOLDERS[kind], autocomplete: "off", spellcheck: "false", "aria-label": label });
    input.value = tree.t;
    return plain(kind, input);
  };
}
for (const kind of ["list", "set", "tuple", "frozenset"]) Atop.editors[kind] = (tree, label) => collection(kind, tree.items || [], label);

// Lists and dicts: a line for each member, to be moved, removed and added.
function collection(kind, members, label) {
  const pairs = kind === "dict";
  const list = Atop.element("ol", { class: "editor-lines" });
  const add = (member, focus) => {
    const number = list.children.length + 1;
    const key = pairs ? Atop.editor(member[0], { label: `name ${number} of ${label}`, plainly: true }) : null;
    const value = Atop.editor(pairs ? member[1] : member, { label: pairs ? `value ${number} of ${label}` : `${number} of ${label}` });
    const button = (text, name, run) => Atop.element("button", { type: "button", class: "plain", "aria-label": `${name} ${number} of ${label}`, click: run }, text);
    const remove = button("✕", "Remove", () => {
      const next = line.nextElementSibling || line.previousElementSibling;
      line.remove();
      (next?.querySelector("input, textarea, select") || more).focus();
    });
    const up = button("↑", "Move up", () => { if (line.previousElementSibling) { line.previousElementSibling.before(line); up.focus(); } });
    const buttons = Atop.element("span", { class: "line-buttons" }, kind === "list" || kind === "tuple" ? up : null, remove);
    const line = Atop.element("li", { class: pairs ? "pair" : null }, key ? key.element : null, value.element, buttons);
    line.read = () => (pairs ? [key.read(), value.read()] : value.read());
    list.append(line);
    if (focus) (key || value).focus();
  };
  const like = () => { // a new member is of the kind of the last one
    const last = members[members.length - 1];
    const blank = (tree) => (tree && !["enum", "value"].includes(tree.k) ? { k: tree.k, t: "", items: [], entries: (tree.entries || []).map(([name, value]) => [name, { k: value.k, t: "", items: [], entries: [] }]) } : { k: "str", t: "" });
    return pairs ? [{ k: "str", t: "" }, blank(last && last[1])] : blank(last);
  };
  const more = Atop.element("button", { type: "button", click: () => add(like(), true) }, "Add");
  members.forEach((member) => add(member, false));
  return {
    element: Atop.element("div", { class: "collection", role: "group", "aria-label": label }, list, more),
    read: () => ({ kind, [pairs ? "entries" : "items"]: [...list.children].map((line) => line.read()) }),
    focus: () => (list.querySelector("input, textarea, select") || more).focus(),
  };
}

// A field that finds an item as one types: a combobox (ARIA 1.2).
let choosers = 0;
Atop.itemChooser = (tree, label) => {
  const name = `chooser-${(choosers += 1)}`;
  let id = tree.id || "";
  let options = [];
  let active = -1;
  const list = Atop.element("ul", { role: "listbox", id: name, "aria-label": label, hidden: true });
  const input = Atop.element("input", { role: "combobox", "aria-expanded": "false", "aria-controls": name, "aria-autocomplete": "list", "aria-label": label, autocomplete: "off", placeholder: "Type a name or a number", dir: "auto" });
  input.value = id ? tree.t : "";
  const show = (on) => { list.hidden = !on; input.setAttribute("aria-expanded", String(on)); if (!on) input.removeAttribute("aria-activedescendant"); };
  const mark = (next) => {
    active = next;
    [...list.children].forEach((line, place) => line.setAttribute("aria-selected", String(place === active)));
    if (active >= 0) { input.setAttribute("aria-activedescendant", list.children[active].id); list.children[active].scrollIntoView({ block: "nearest" }); }
  };
  const choose = (option) => { id = option.id; input.value = option.label; input.dataset.id = id; show(false); };
  const find = Atop.debounced(async () => {
    const text = input.value;
    try {
      options = (await Atop.request("GET", `/api/find?q=${encodeURIComponent(text)}`)).items;
    } catch (error) { Atop.tell(error); return; }
    if (text !== input.value || document.activeElement !== input) return;
    list.replaceChildren(...options.map((option, place) => {
      const line = Atop.element("li", { role: "option", id: `${name}-${place}`, "aria-selected": "false" }, Atop.element("bdi", {}, option.label), Atop.element("small", { class: "soft" }, ` ${option.pool ? `${option.pool}, ` : ""}item ${option.id}`));
      line.addEventListener("pointerdown", (event) => { event.preventDefault(); choose(option); });
      return line;
    }));
    if (!options.length) list.append(Atop.element("li", { role: "option", "aria-disabled": "true", "aria-selected": "false", id: `${name}-none` }, "Nothing is called that."));
    show(true);
    mark(options.length ? 0 : -1);
  }, 100);
  input.addEventListener("input", () => { id = ""; find(); });
  input.addEventListener("focus", find);
  input.addEventListener("blur", () => show(false));
  input.addEventListener("keydown", (event) => {
    if (list.hidden) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && options.length) { event.preventDefault(); mark((active + step + options.length) % options.length); }
    if (event.key === "Enter" && active >= 0) { event.preventDefault(); event.stopPropagation(); choose(options[active]); }
    if (event.key === "Escape") { event.preventDefault(); event.stopPropagation(); show(false); }
  });
  return {
    element: Atop.element("div", { class: "chooser" }, input, list),
    read: () => (id || input.value ? { kind: "ref", text: id || input.value } : { kind: "none" }),
    focus: () => input.focus(),
  };
};
