/* Draws a page's figures and keeps every choice the same in all of its charts, tables and controls.

A choice is: editors (isolated), span (edits), seed, ability, study. It comes from a legend, a brush or a control,
goes into `state`, and from there everywhere. `ast` makes Vega interpret its expressions, so that the page's policy
can forbid `eval`. Text of the study reaches the document through textContent alone. */

const every = (selector, root = document) => [...root.querySelectorAll(selector)];
const nothing = { editors: [], span: null, seed: "all", ability: "", study: "" };
const state = { ...nothing };
const charts = every("figure[data-chart]").map((figure) => ({
  figure,
  spec: JSON.parse(figure.querySelector("script").textContent),
  plot: figure.querySelector(".plot"),
}));
const controls = document.querySelector("form.controls");
const names = (list) => new Set(every(`[name=${list}] option`, controls ?? document.createElement("i")).map((o) => o.value));
const abilities = names("ability"), editors = names("editor");

/* The chart library lies packed in the page; its text is run as a script that the policy knows by its hash. */
const unpack = async () => {
  const packed = atob(document.getElementById("library").textContent);
  const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.type = "module";
  script.textContent = await new Response(stream).text();
  const ready = new Promise((done) => document.addEventListener("library", done, { once: true }));
  document.head.append(script);
  await ready;
};

/* Panels stand side by side as far as the width allows; a panel titled by an ability or an editor that is not
chosen is left out. */
const titled = (part) => [part.title?.text ?? part.title ?? ""].flat().join(" ");
const suits = (part) => {
  const title = titled(part);
  if (state.ability && abilities.has(title) && title !== state.ability) return false;
  return !(state.editors.length && editors.has(title) && !state.editors.includes(title));
};
const arranged = (chart) => {
  const spec = structuredClone(chart.spec);
  const room = chart.figure.querySelector(".chart").clientWidth - 34;
  if (spec.concat) {
    spec.concat = spec.concat.filter(suits);
    const most = spec.columns ?? spec.concat.length;
    spec.columns = Math.max(1, Math.min(most, Math.floor(room / (spec.usermeta?.panel ?? room)) || 1));
    const views = new Set(spec.concat.flatMap((part) => [part.name, ...(part.layer ?? []).map((layer) => layer.name)]));
    spec.params = (spec.params ?? []).map((param) =>
      param.views ? { ...param, views: param.views.filter((view) => views.has(view)) } : param);
    spec.params = spec.params.filter((param) => !param.views || param.views.length);
  }
  if (matchMedia("(pointer: coarse)").matches) // there a drag scrolls the page
    spec.params = (spec.params ?? []).filter((param) => param.name !== "brush");
  spec.config ??= {};
  spec.config.legend = { ...spec.config.legend, columns: spec.columns === 1 ? 2 : 3 * (spec.columns ?? 1) };
  return spec;
};

const named = (spec, name) => (spec.params ?? []).find((param) => param.name === name);
const isolates = (spec) => named(spec, "isolate")?.select?.fields?.[0] === "editor";
const picked = () => state.editors.map((editor) => (
  { unit: "", fields: [{ type: "E", field: "editor" }], values: [editor] }));

const give = (chart, from) => {
  const { view, drawn } = chart;
  if (!view) return;
  if (isolates(drawn) && from !== view) view.data("isolate_store", picked());
  if (named(drawn, "brush") && from !== view) view.data("brush_store", []);
  if (named(drawn, "edits_span")) view.signal("edits_span", state.span);
  if (named(drawn, "seed")) view.signal("seed", state.seed);
  view.runAsync();
};

const listen = (chart) => {
  const { view, drawn, figure } = chart;
  if (isolates(drawn))
    view.addDataListener("isolate_store", (_, tuples) =>
      choose({ editors: [...new Set(tuples.flatMap((tuple) => tuple.values))] }, view)); // one tuple a panel
  if (named(drawn, "brush"))
    view.addDataListener("brush_store", (_, tuples) => {
      if (tuples.length) chart.brushing = true;
      else if (!chart.brushing) return; // emptied from outside: another chart is brushed now
      else chart.brushing = false;
      choose({ span: tuples.length ? [...tuples[0].values[0]].sort((a, b) => a - b) : null }, view);
    });
  view.addEventListener("click", (_, item) => {
    const row = item?.datum?.row;
    if (Number.isInteger(row) && !["line", "area", "group"].includes(item.mark.marktype)) reveal(figure, row);
  });
};

const draw = async (chart) => {
  if (chart.figure.closest("[hidden]")) return;
  const spec = arranged(chart);
  const layout = JSON.stringify([spec.columns, (spec.concat ?? []).map(titled)]);
  if (chart.layout === layout) return;
  chart.layout = layout;
  chart.view?.finalize();
  chart.view = undefined;
  chart.figure.dataset.columns = spec.columns ?? 1;
  if (spec.concat && !spec.concat.length) {
    chart.plot.textContent = "No panel of this figure is about what is chosen above.";
    return;
  }
  try {
    const embedded = await globalThis.vegaEmbed(chart.plot, spec, { mode: "vega-lite", renderer: "svg", ast: true,
      actions: false, defaultStyle: false, tooltip: { disableDefaultStyle: true } });
    Object.assign(chart, { view: embedded.view, drawn: spec, brushing: false });
    chart.plot.querySelector("svg").setAttribute("aria-hidden", "true"); // the plot's label says what is in it
    give(chart);
    listen(chart);
    chart.figure.dataset.drawn = "yes";
  } catch (error) {
    chart.plot.textContent = `This chart could not be drawn: ${error.message}. Its data table and files are below.`;
    console.error(error);
  }
};
let drawing = Promise.resolve();
const drawAll = () => {
  drawing = drawing.then(async () => {
    for (const chart of charts) {
      await draw(chart);
      await new Promise((done) => setTimeout(done)); // lets a click come between two charts
    }
  });
  return drawing;
};

/* From a choice to everything that follows it. */
const choose = (change, from) => {
  const before = JSON.stringify(state);
  Object.assign(state, change);
  if (JSON.stringify(state) === before) return;
  for (const chart of charts) give(chart, from);
  if ("study" in change)
    for (const part of every("[data-study]")) part.hidden = state.study !== "" && part.dataset.study !== state.study;
  for (const part of every(".matrix [data-ability]"))
    part.hidden = state.ability !== "" && part.dataset.ability !== state.ability;
  for (const row of every(".matrix [data-editor]"))
    row.classList.toggle("away", state.editors.length > 0 && !state.editors.includes(row.dataset.editor));
  tell();
  drawAll();
};

const tell = () => {
  if (!controls) return;
  const shown = { editor: state.editors.length > 1 ? "+" : state.editors[0] ?? "", seed: state.seed,
    ability: state.ability, study: state.study, from: state.span?.[0] ?? "", to: state.span?.[1] ?? "" };
  for (const [name, value] of Object.entries(shown)) {
    const select = controls.elements[name];
    if (!select) continue;
    select.value = String(value);
    if (select.selectedIndex < 0) select.value = "";
  }
  const said = [
    state.editors.length && `only ${state.editors.join(", ")}`,
    state.ability && `ability ${state.ability}`,
    state.seed !== "all" && `seed ${state.seed}`,
    state.study && controls.elements.study?.selectedOptions[0]?.textContent,
    state.span && `${Math.max(0, Math.ceil(state.span[0]))} to ${Math.floor(state.span[1])} edits`,
  ].filter(Boolean);
  controls.querySelector("output").textContent = said.length ? `Shown: ${said.join("; ")}.` : "";
  controls.querySelector("[type=reset]").disabled = !said.length;
};

const heed = () => {
  if (!controls) return;
  controls.hidden = false;
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.addEventListener("reset", (event) => {
    event.preventDefault();
    choose({ ...nothing });
  });
  controls.addEventListener("change", (event) => {
    const { name, value } = event.target;
    if (name === "editor") choose({ editors: value ? [value] : [] });
    else if (name === "from" || name === "to") {
      const [from, to] = ["from", "to"].map((end) => controls.elements[end].value);
      choose({ span: from || to ? [from ? +from : 0, to ? +to : Infinity] : null });
    } else choose({ [name]: value });
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !controls.contains(event.target)) choose({ ...nothing });
  });
  tell();
};

/* From a point to its row. A table that the page holds only in part is filled from the chart's own data. */
const cell = (kind, words) => {
  const made = document.createElement(kind);
  made.textContent = words ?? "–";
  return made;
};
const held = (spec, part, layer) => {
  const data = layer.data ?? part.data ?? spec.data;
  return data?.values ?? spec.datasets?.[data?.name] ?? [];
};
const fill = (figure) => {
  const table = figure.querySelector("details.data[data-cut] table");
  if (!table) return;
  const { spec } = charts.find((chart) => chart.figure === figure);
  const rows = new Map();
  for (const part of spec.concat ?? [spec])
    for (const layer of part.layer ?? [part])
      for (const datum of held(spec, part, layer))
        if (Number.isInteger(datum.row) && !rows.has(datum.row)) rows.set(datum.row, { panel: titled(part), ...datum });
  const columns = [...new Set([...rows.values()].flatMap(Object.keys))].filter((name) => !["row", "x"].includes(name));
  const body = document.createElement("tbody");
  for (const [row, datum] of [...rows].sort(([a], [b]) => a - b)) {
    const line = body.insertRow();
    line.id = `${figure.dataset.chart}-row-${row}`;
    line.append(...columns.map((name) => cell("td", datum[name])));
  }
  const head = document.createElement("tr");
  head.append(...columns.map((name) => Object.assign(cell("th", name.replaceAll("_", " ")), { scope: "col" })));
  table.tHead.replaceChildren(head);
  table.tBodies[0].replaceWith(body);
  const details = figure.querySelector("details.data");
  details.querySelector(".caption")?.remove();
  delete details.dataset.cut;
};
const reveal = (figure, row) => {
  fill(figure);
  const line = document.getElementById(`${figure.dataset.chart}-row-${row}`);
  if (!line) return;
  line.closest("details").open = true;
  for (const old of every("tr.picked")) old.classList.remove("picked");
  line.classList.add("picked");
  line.tabIndex = -1;
  line.focus({ preventScroll: true });
  line.scrollIntoView({ block: "center" });
  history.replaceState(null, "", `#${line.id}`);
};
const follow = () => {
  const [, name, row] = /^#(.+)-row-(\d+)$/.exec(decodeURIComponent(location.hash)) ?? [];
  const chart = charts.find(({ figure }) => figure.dataset.chart === name);
  if (chart) reveal(chart.figure, Number(row));
};

let waiting;
window.addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(drawAll, 150);
});
window.addEventListener("hashchange", follow);
for (const details of every("details.data[data-cut]"))
  details.addEventListener("toggle", () => fill(details.closest("figure")), { once: true });
heed();
if (charts.length) {
  await unpack();
  await drawAll();
}
follow();
document.documentElement.dataset.ready = "yes";
