"""The style sheet and the script of the report page, inline, so that the page is one file without network."""

STYLE = """
:root { color-scheme: light dark; --paper: #fdfdfb; --card: #ffffff; --ink: #1c2127; --soft: #57606a;
  --line: #dcdfe3; --faint: #f3f4f1; --accent: #0a5c97; --warn: #a8430f; --good: #0b6b4f;
  --serif: Charter, "Bitstream Charter", "Iowan Old Style", "Palatino Linotype", Palatino, Georgia,
    "DejaVu Serif", serif;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --card: #1a1e23; --ink: #e7e9ec;
  --soft: #a3abb5; --line: #343a42; --faint: #20252b; --accent: #7fbdee; --warn: #f0935c; --good: #63cfa9; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 3.5rem; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 17px/1.6 var(--serif); }
a { color: var(--accent); text-underline-offset: .18em; text-decoration-thickness: .06em; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; border-radius: 2px; }
.skip { position: absolute; left: -999px; } .skip:focus { left: 1rem; top: 1rem; background: var(--card);
  padding: .5rem 1rem; z-index: 3; }
.frame { max-width: 1340px; margin: 0 auto; padding: 0 2rem; display: grid; gap: 0 3rem;
  grid-template-columns: 11.5rem minmax(0, 1fr); }
nav { font: 14px/1.4 var(--sans); }
nav ol { list-style: none; margin: 0; padding: 0; }
nav a { display: block; padding: .3rem .7rem; color: var(--soft); text-decoration: none;
  border-left: 2px solid var(--line); }
nav a:hover { color: var(--accent); border-color: var(--accent); }
.side { position: sticky; top: 0; align-self: start; padding-top: 4.4rem; }
header { padding: 3.4rem 0 .4rem; }
.kicker { font: 600 13px/1.4 var(--sans); letter-spacing: .09em; text-transform: uppercase; color: var(--soft);
  margin: 0 0 .5rem; }
h1 { font-size: clamp(1.75rem, 4.2vw, 2.6rem); line-height: 1.15; letter-spacing: -.012em; margin: 0 0 1rem;
  font-weight: 600; max-width: 24em; text-wrap: balance; }
h2 { font-size: 1.5rem; line-height: 1.25; margin: 3.2rem 0 .8rem; padding-top: 1.1rem; font-weight: 600;
  border-top: 1px solid var(--line); }
h3 { font: 600 1.02rem/1.4 var(--sans); margin: 2rem 0 .5rem; }
p, li, dd { max-width: 44em; } p { margin: 0 0 .9rem; }
.lead { font-size: 1.15rem; line-height: 1.55; }
.findings { max-width: 49em; margin: 1.4rem 0 0; padding: .9rem 1.2rem .9rem 2.2rem; background: var(--faint);
  border-left: 3px solid var(--accent); } .findings li { margin: .25rem 0; }
.reading dt { font: 600 .95rem/1.5 var(--sans); margin-top: .7rem; } .reading dd { margin: 0; }
figure { margin: 1.2rem 0 2.2rem; }
.chart { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 1rem 1rem .7rem;
  color: var(--ink); overflow-x: auto; }
.chart svg { display: block; overflow: visible; }
.chart [fill="#C2571A"] { fill: var(--warn); }
.key { font: 13px/1.5 var(--sans); color: var(--soft); margin: 0 0 .5rem; max-width: none; }
.vega-embed { width: 100%; }
figcaption { font-size: .95rem; line-height: 1.55; margin-top: .7rem; max-width: 48em; }
.files { font: 13px/1.5 var(--sans); margin: .4rem 0 0; } .files a { margin-right: 1.1rem; }
details { font: 14px/1.5 var(--sans); margin: .5rem 0; } summary { cursor: pointer; color: var(--accent);
  padding: .15rem 0; width: fit-content; }
.scroll { overflow-x: auto; max-width: 100%; } .tall { max-height: 26rem; overflow-y: auto; }
table { border-collapse: separate; border-spacing: 0; font: 14px/1.45 var(--sans); margin: .3rem 0;
  font-variant-numeric: tabular-nums lining-nums;
  border-top: 2px solid var(--ink); border-bottom: 2px solid var(--ink); }
.caption { font-size: .95rem; line-height: 1.5; max-width: 48em; margin: 0 0 .6rem; }
th, td { padding: .32rem .85rem; text-align: left; vertical-align: baseline; }
thead th { border-bottom: 1px solid var(--ink); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 500; } tbody tr + tr > * { border-top: 1px solid var(--line); }
.number { text-align: right; white-space: nowrap; }
tr.group > th { font-weight: 600; color: var(--soft); padding-top: .9rem; font-size: 12.5px;
  letter-spacing: .04em; text-transform: uppercase; border-top: 1px solid var(--ink); }
.summary tbody th { position: sticky; left: 0; background: var(--paper); }
.error, .note { color: var(--soft); font-size: .86em; } .note { display: block; font-weight: 400; }
.worse { color: var(--warn); font-weight: 650; } .better { color: var(--good); font-weight: 650; }
.warn { color: var(--warn); }
.missing { border: 1px dashed var(--line); border-radius: 6px; padding: .8rem 1rem; color: var(--soft);
  font: 15px/1.5 var(--sans); }
.prompt { min-width: 15rem; white-space: pre-wrap; } bdi { overflow-wrap: anywhere; }
th bdi { overflow-wrap: break-word; }
pre { font: 12.5px/1.5 var(--mono); background: var(--faint); border: 1px solid var(--line); border-radius: 6px;
  padding: .8rem 1rem; overflow: auto; max-height: 30rem; unicode-bidi: isolate; }
.hash { font-family: var(--mono); font-size: 12px; overflow-wrap: anywhere; }
footer { border-top: 1px solid var(--line); margin: 3rem 0 0; padding: 1.2rem 0 3rem; color: var(--soft);
  font: 14px/1.5 var(--sans); }
#vg-tooltip-element { position: fixed; visibility: hidden; z-index: 9; background: var(--card); color: var(--ink);
  border: 1px solid var(--line); border-radius: 5px; box-shadow: 0 3px 12px rgb(0 0 0 / .16); padding: .45rem .6rem;
  font: 12.5px/1.4 var(--sans); font-variant-numeric: tabular-nums; max-width: 22rem; }
#vg-tooltip-element.visible { visibility: visible; }
#vg-tooltip-element table { border: 0; font: inherit; margin: 0; }
#vg-tooltip-element tr > td { border: 0; padding: .06rem .3rem; overflow-wrap: anywhere; }
#vg-tooltip-element td.key { color: var(--soft); text-align: right; white-space: nowrap; }
@media (max-width: 1180px) { .frame { display: block; padding: 0 1.25rem; }
  .side { position: sticky; top: 0; z-index: 2; background: var(--paper); padding: 0; margin: 0 -1.25rem;
    border-bottom: 1px solid var(--line); overflow-x: auto; }
  nav ol { display: flex; } nav a { white-space: nowrap; border: 0; padding: .75rem .8rem; }
  header { padding-top: 1.8rem; } }
@media (max-width: 640px) { body { font-size: 16px; } .chart { padding: .7rem .5rem; margin: 0 -.6rem; }
  th, td { padding: .32rem .5rem; } .summary tbody th { min-width: 7.5rem; max-width: 9.5rem; } }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
@media print { :root { color-scheme: light; --paper: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #bbb;
  --faint: #f6f6f6; --accent: #000; --warn: #8a3000; --good: #00543c; } body { font-size: 10.5pt; }
  .side, .skip, .files { display: none; } .frame { display: block; max-width: none; padding: 0; }
  .chart { border: 0; padding: 0; overflow: visible; } .chart svg { max-width: 100%; height: auto; }
  figure, tr { break-inside: avoid; } h2, h3 { break-after: avoid; } pre, .tall { max-height: none; } }
"""

# `ast` makes Vega interpret its expressions, so that the page's policy can forbid `eval`. The panels of a chart
# stand side by side as far as the width allows.
SCRIPT = """
const figures = [...document.querySelectorAll("figure[data-chart]")];
const fit = (figure, spec) => {
  const room = figure.querySelector(".chart").clientWidth - 34;
  return Math.max(1, Math.min(spec.columns, Math.floor(room / spec.usermeta.panel)));
};
const draw = async (figure) => {
  const spec = JSON.parse(figure.querySelector("script").textContent);
  const columns = fit(figure, spec);
  if (figure.dataset.columns === String(columns)) return;
  figure.dataset.columns = columns;
  spec.columns = columns;
  spec.config.legend.columns = columns === 1 ? 2 : 3 * columns;
  try {
    await vegaEmbed(figure.querySelector(".plot"), spec, { mode: "vega-lite", renderer: "svg", ast: true,
      actions: false, defaultStyle: false, tooltip: { disableDefaultStyle: true } });
    figure.dataset.drawn = "yes";
  } catch (error) {
    figure.querySelector(".plot").textContent = "This chart could not be drawn: " + error.message +
      ". Its data table and files are below.";
    console.error(error);
  }
};
const all = async () => { for (const figure of figures) await draw(figure); };
let waiting;
window.addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(all, 150); });
await all();
"""
