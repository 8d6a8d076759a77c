// Looks of the report page: light, dark (by the system or the button), and print.
#pragma once

namespace cohort::core {

inline constexpr char kReportStyle[] = R"css(
:root {
  --page: #f6f7f9; --card: #ffffff; --line: #e3e6ea; --grid: #eceef1; --text: #1a1d21;
  --soft: #626a73; --faint: #9aa2ab; --good: #18794e; --bad: #b42318;
  --c0: #2563c9; --c1: #d9600a; --c2: #16836b; --c3: #9a3fb5; --c4: #b8860b; --c5: #c2314f;
  --neutral: 240, 240, 236; --low: 33, 92, 168; --high: 192, 57, 30; --dead: 30, 16, 48;
  --worst: 206, 84, 18; --mid: 219, 214, 200; --best: 20, 128, 112;
  --shadow: 0 1px 2px rgba(20, 25, 35, .06);
}
:root[data-theme=dark] {
  --page: #101317; --card: #181c21; --line: #2a3037; --grid: #242a31; --text: #e8eaed;
  --soft: #9ba4ae; --faint: #6b747e; --good: #4cc38a; --bad: #ff8a7a;
  --c0: #6aa5ff; --c1: #ff9f4a; --c2: #4cc9a6; --c3: #cf8be8; --c4: #e2b93b; --c5: #ff7d95;
  --neutral: 38, 43, 50; --low: 92, 164, 255; --high: 255, 122, 84; --dead: 214, 84, 214;
  --worst: 240, 122, 52; --mid: 92, 96, 102; --best: 58, 190, 164;
  --shadow: none;
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--text);
  font: 14px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "Liberation Sans", Arial, sans-serif;
  font-variant-numeric: tabular-nums;
}
header, main, footer { max-width: 1280px; margin: 0 auto; padding: 0 24px; }
header { display: flex; flex-wrap: wrap; gap: 8px 24px; align-items: flex-end; padding-top: 26px; padding-bottom: 16px; }
.title { flex: 1; min-width: 260px; }
h1 { margin: 0; font-size: 26px; line-height: 1.2; font-weight: 650; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { margin: 0 0 4px; font-size: 17px; font-weight: 620; }
h3 { margin: 0; font-size: 13.5px; font-weight: 620; overflow-wrap: anywhere; }
#subtitle { margin: 3px 0 0; color: var(--soft); overflow-wrap: anywhere; }
.tools { display: flex; gap: 12px; align-items: center; color: var(--soft); font-size: 12.5px; }
.tools label { display: flex; gap: 8px; align-items: center; }
input[type=range] { width: 110px; accent-color: var(--c0); }
button {
  font: inherit; font-size: 12px; line-height: 1; color: var(--soft); background: var(--card);
  border: 1px solid var(--line); border-radius: 6px; padding: 5px 9px; cursor: pointer;
}
button:hover { color: var(--text); border-color: var(--faint); }
.hint { margin: 0; color: var(--soft); font-size: 13px; }

.figures { display: flex; flex-wrap: wrap; gap: 12px; margin-bottom: 16px; }
.figure, .chart, .heatmap, details {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px; box-shadow: var(--shadow);
}
.figure { flex: 1 1 auto; min-width: 112px; padding: 11px 14px 10px; white-space: nowrap; }
.figure .label { color: var(--soft); font-size: 12px; }
.figure .value { font-size: 22px; line-height: 1.25; font-weight: 620; letter-spacing: -.01em; }
.figure .unit { font-size: 12.5px; font-weight: 400; color: var(--soft); letter-spacing: 0; margin-left: 4px; }
.figure .note { color: var(--soft); font-size: 12px; }
.figure .note.good { color: var(--good); }
.figure .note.bad { color: var(--bad); }

.charts { display: flex; flex-wrap: wrap; gap: 14px; }
.charts > .chart { flex: 1 1 calc(50% - 7px); }
.charts > .chart.wide { flex-basis: 100%; }
.charts > .chart.third { flex-basis: calc(33.3% - 9.4px); }
.charts.small > .chart { flex-grow: 0; }
.chart { padding: 11px 14px 8px; min-width: 0; }
.chart .head { display: flex; flex-wrap: wrap; gap: 2px 12px; align-items: baseline; min-height: 22px; }
.chart .head .unit { color: var(--soft); font-size: 12px; }
.chart .head .legend { margin-left: auto; display: flex; flex-wrap: wrap; gap: 2px 12px; font-size: 12px; color: var(--soft); }
.chart .head .legend b { font-weight: 600; color: var(--text); }
.chart .head button { padding: 3px 6px; font-size: 11px; }
.key { display: inline-block; width: 14px; height: 0; border-top: 2.5px solid; vertical-align: middle; margin-right: 5px; border-radius: 2px; }
.key.dashed { border-top: 2px dashed; }
svg { display: block; width: 100%; height: auto; touch-action: pan-y; cursor: crosshair; user-select: none; -webkit-user-select: none; }
svg text { font-size: 11px; fill: var(--soft); }
svg .grid { stroke: var(--grid); stroke-width: 1; }
svg .axis { stroke: var(--line); stroke-width: 1; }
svg .raw { fill: none; stroke-width: 1; opacity: .3; stroke-linejoin: round; }
svg .band { stroke: none; opacity: .16; }
svg .smooth { fill: none; stroke-width: 1.9; stroke-linejoin: round; stroke-linecap: round; }
svg .rule { stroke: var(--soft); stroke-width: 1.3; stroke-dasharray: 6 4; }
svg .rule-label { fill: var(--soft); paint-order: stroke; stroke: var(--card); stroke-width: 4px; }
svg .event { stroke: var(--faint); stroke-width: 1; stroke-dasharray: 2 3; }
svg .cursor { stroke: var(--faint); stroke-width: 1; }
svg .dot { stroke: var(--card); stroke-width: 1.5; }
svg .drag { fill: var(--c0); opacity: .13; }

#experts { margin-top: 26px; }
.legend-row { display: flex; flex-wrap: wrap; gap: 6px 24px; align-items: flex-end; justify-content: space-between; margin-bottom: 10px; }
.scale { display: flex; gap: 14px; align-items: flex-start; font-size: 11px; color: var(--soft); }
.scale .ramp { width: 260px; }
.scale canvas { display: block; width: 100%; height: 11px; border-radius: 3px; }
.scale .ticks { display: flex; justify-content: space-between; margin-top: 2px; }
.scale .swatch { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 5px; vertical-align: -1px; }
.heatmaps { display: grid; grid-template-columns: repeat(auto-fill, minmax(282px, 1fr)); gap: 14px; }
.heatmap { padding: 10px 12px 8px; min-width: 0; }
.heatmap .head { display: flex; justify-content: space-between; gap: 8px; align-items: baseline; margin-bottom: 6px; }
.heatmap .head span { color: var(--soft); font-size: 12px; white-space: nowrap; }
.heatmap .plot { position: relative; cursor: crosshair; }
.heatmap canvas { display: block; width: 100%; image-rendering: pixelated; border-radius: 4px; }
.heatmap .mark { position: absolute; top: 0; bottom: 0; width: 1px; background: var(--text); opacity: .55; pointer-events: none; }
.heatmap .ends { display: flex; justify-content: space-between; margin-top: 3px; font-size: 11px; color: var(--soft); }

#lead:not(:empty) { margin-bottom: 14px; }
#samples { margin: 26px 0 30px; }
#samples .hint { max-width: 78ch; }
#reward-scale { align-items: baseline; }
#reward-scale .ramp { width: 170px; }
#mosaic { display: flex; margin-bottom: 8px; }
#mosaic button {
  flex: 0 1 60px; min-width: 0; padding: 0 1px; border: 0; border-radius: 0; background: none; color: var(--soft);
  display: flex; flex-direction: column;
}
#mosaic .stack { display: flex; flex-direction: column; gap: 1px; width: 100%; height: 88px; }
#mosaic i { flex: 1; min-height: 0; border-radius: 1.5px; }
#mosaic i.faded { opacity: .16; }
#mosaic button:hover .stack { opacity: .8; }
#mosaic .label { height: 20px; margin: 3px auto 0; padding-top: 3px; width: 0; display: flex; justify-content: center; white-space: nowrap; font-size: 11px; }
#mosaic .picked .stack { outline: 2px solid var(--text); outline-offset: 1px; border-radius: 2px; }
#mosaic .picked .label { color: var(--text); font-weight: 650; }
.controls { display: flex; flex-wrap: wrap; gap: 8px 14px; align-items: center; margin-bottom: 10px; font-size: 12px; color: var(--soft); }
.choices button { border-radius: 0; margin-right: -1px; }
.choices button:first-child { border-radius: 6px 0 0 6px; }
.choices button:last-child { border-radius: 0 6px 6px 0; }
.choices button.on { color: var(--card); background: var(--text); border-color: var(--text); }
input[type=search] {
  font: inherit; font-size: 12.5px; width: 260px; padding: 4px 9px; color: var(--text); background: var(--card);
  border: 1px solid var(--line); border-radius: 6px;
}
.trio { display: grid; grid-template-columns: repeat(var(--columns, 3), minmax(0, 1fr)); gap: 12px; }
#sample-heads { position: sticky; top: 0; z-index: 3; background: var(--page); padding: 6px 0; }
#sample-heads > div { display: flex; flex-wrap: wrap; gap: 2px 8px; align-items: center; padding: 0 2px; }
#sample-heads .when, #sample-heads .count { color: var(--soft); font-size: 12.5px; }
#sample-heads b { font-weight: 650; }
#sample-heads input { margin-left: auto; }
.row { background: var(--card); border: 1px solid var(--line); border-radius: 10px; box-shadow: var(--shadow); padding: 10px 12px 12px; margin-bottom: 12px; }
.problem { display: flex; flex-wrap: wrap; gap: 2px 12px; align-items: baseline; margin-bottom: 8px; font-size: 13px; }
.problem .prompt { white-space: pre-wrap; overflow-wrap: anywhere; max-height: 8.7em; overflow-y: auto; font-weight: 600; unicode-bidi: isolate; }
.problem .answer { color: var(--soft); overflow-wrap: anywhere; max-height: 4.4em; overflow-y: auto; }
.problem .answer b { color: var(--text); font-weight: 600; unicode-bidi: isolate; }
.badge { font-size: 11px; color: var(--soft); border: 1px solid var(--line); border-radius: 9px; padding: 0 7px; white-space: nowrap; }
.left-out { color: var(--faint); font-weight: 400; }
.cell { display: flex; flex-direction: column; gap: 8px; min-width: 0; }
.cell .narrow { display: none; color: var(--soft); font-size: 12px; }
.cell .more { align-self: flex-start; }
article { border-left: 4px solid; border-radius: 5px; padding: 6px 10px 8px; min-width: 0; }
article .facts { display: flex; flex-wrap: wrap; gap: 0 10px; align-items: baseline; font-size: 12px; color: var(--soft); overflow-wrap: anywhere; }
article .facts b { color: var(--text); font-weight: 650; }
article .problem { margin: 5px 0 3px; }
article .text {
  margin-top: 3px; max-height: 230px; overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate;
  font: 12.5px/1.45 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
mark { background: var(--c4); color: #fff; border-radius: 2px; }
details.inline { margin: 4px 0 0; padding: 0; border: 0; background: none; box-shadow: none; }
details.inline summary { padding: 2px 0; font-weight: 400; }

details { margin-top: 14px; padding: 0 16px; }
#other { margin-top: 26px; }
summary { padding: 11px 0; font-weight: 620; cursor: pointer; }
summary .count { color: var(--soft); font-weight: 400; margin-left: 6px; }
details[open] { padding-bottom: 14px; }
details .chart { border-color: var(--line); box-shadow: none; }
.scroll { overflow-x: auto; margin-bottom: 8px; }
table { border-collapse: collapse; font-size: 13px; }
table.full { width: 100%; }
th, td { text-align: left; padding: 4px 16px 4px 0; border-bottom: 1px solid var(--grid); vertical-align: top; overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 500; white-space: nowrap; }
td.number { text-align: right; }
td.number, td.fixed { white-space: nowrap; }
th.number { text-align: right; }
td table { margin: -4px 0; }
tr:last-child > td, tr:last-child > th { border-bottom: 0; }
h4 { margin: 10px 0 2px; font-size: 13px; font-weight: 620; }
pre { margin: 0; padding: 12px 14px; overflow-x: auto; background: var(--page); border-radius: 8px; font: 12.5px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
footer { padding-top: 18px; padding-bottom: 32px; color: var(--faint); font-size: 12px; }
#tip {
  position: fixed; z-index: 9; pointer-events: none; max-width: 320px; padding: 7px 10px; font-size: 12px; line-height: 1.5;
  background: var(--card); border: 1px solid var(--line); border-radius: 8px; box-shadow: 0 4px 16px rgba(0, 0, 0, .18);
}
#tip .step { color: var(--soft); }
#tip b { font-weight: 620; }
[hidden] { display: none !important; }

@media (max-width: 860px) {
  header, main, footer { padding-left: 14px; padding-right: 14px; }
  .charts > .chart, .charts > .chart.third { flex-basis: 100%; }
  .trio { grid-template-columns: minmax(0, 1fr); }
  .cell .narrow { display: block; }
  #sample-heads { position: static; }
}
@media print {
  body { background: #fff; }
  .tools, .chart button, .controls, #sample-heads input, #sample-more, #tip { display: none !important; }
  header, main, footer { max-width: none; padding-left: 0; padding-right: 0; }
  #sample-heads { position: static; }
  article .text { max-height: none; }
  .figure, .chart, .heatmap, article { break-inside: avoid; box-shadow: none; }
  .charts > .chart { flex-basis: calc(50% - 7px); }
  .charts > .chart.wide { flex-basis: 100%; }
  .charts > .chart.third { flex-basis: calc(33.3% - 9.4px); }
  .heatmaps { grid-template-columns: repeat(3, minmax(0, 1fr)); }
  pre { white-space: pre-wrap; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
)css";

}  // namespace cohort::core
