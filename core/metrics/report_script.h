// Last part of the report page's script (after report_charts.h and report_samples_script.h):
// expert-load heatmaps, key figures, tables, and what puts the page together.
#pragma once

namespace cohort::core {

inline constexpr char kReportScript[] = R"js(
// ---------------------------------------------------------------- heatmaps
const heatmaps = [];
let reach = 1;  // log2 of the ratio at which the colours end

function palette() {
  const style = getComputedStyle(document.documentElement);
  const rgb = name => style.getPropertyValue(name).split(',').map(Number);
  return {neutral: rgb('--neutral'), low: rgb('--low'), high: rgb('--high'), dead: rgb('--dead')};
}
// Colour of a byte of LoadHistory: 0 no token, 128 the mean, 32 steps a factor of two.
function shade(byte, colors) {
  if (byte === 0) return colors.dead;
  const t = clamp((byte - 128) / 32 / reach, -1, 1), end = t < 0 ? colors.low : colors.high;
  const amount = Math.abs(t) ** .85;
  return colors.neutral.map((n, i) => n + (end[i] - n) * amount);
}
const ratio = byte => byte === 0 ? 0 : 2 ** ((byte - 128) / 32);
const times = byte => byte === 0 ? 'no token' : ratio(byte).toPrecision(3) + ' × mean';

class Heatmap {
  constructor(layer, host) {
    this.layer = layer;
    this.bytes = Uint8Array.from(atob(layer.data), c => c.charCodeAt(0));
    this.bins = run.loads.from.length;
    this.canvas = element('canvas', {width: this.bins, height: layer.experts});
    this.canvas.style.height = clamp(layer.experts * 8, 64, 192) + 'px';
    this.mark = element('div', {className: 'mark', hidden: true});
    this.plot = element('div', {className: 'plot'}, this.canvas, this.mark);
    const last = Array.from(this.bytes.slice((this.bins - 1) * layer.experts)).map(ratio);
    host.append(element('div', {className: 'heatmap'},
      element('div', {className: 'head'}, element('h3', {}, layer.name.replace(/^model\.layers\./, 'Layer ')),
        element('span', {title: 'Least and greatest load over the mean, at the end'}, 'now ' + Math.min(...last).toFixed(2) + '× to ' + Math.max(...last).toFixed(2) + '×')),
      this.plot,
      element('div', {className: 'ends'}, element('span', {}, short(run.loads.from[0])),
        element('span', {}, layer.experts + ' experts'), element('span', {}, short(run.loads.to[this.bins - 1])))));
    this.plot.addEventListener('pointermove', event => this.move(event));
    this.plot.addEventListener('pointerleave', () => setCursor(null));
    heatmaps.push(this);
  }
  draw(colors) {
    const context = this.canvas.getContext('2d'), image = context.createImageData(this.bins, this.layer.experts);
    for (let bin = 0; bin < this.bins; bin++) for (let expert = 0; expert < this.layer.experts; expert++)
      image.data.set([...shade(this.bytes[bin * this.layer.experts + expert], colors), 255], 4 * (expert * this.bins + bin));
    context.putImageData(image, 0, 0);
  }
  point() {
    this.mark.hidden = cursor == null;
    if (cursor == null) return;
    let bin = run.loads.to.findIndex(to => to >= cursor);
    if (bin < 0) bin = this.bins - 1;
    this.mark.style.left = (bin + .5) / this.bins * 100 + '%';
  }
  move(event) {
    const box = this.canvas.getBoundingClientRect();
    const bin = clamp(Math.floor((event.clientX - box.left) / box.width * this.bins), 0, this.bins - 1);
    const expert = clamp(Math.floor((event.clientY - box.top) / box.height * this.layer.experts), 0, this.layer.experts - 1);
    const from = run.loads.from[bin], to = run.loads.to[bin];
    setCursor((from + to) / 2);
    showTip(event, [element('div', {className: 'step'}, from === to ? 'step ' + from : 'steps ' + from + ' to ' + to),
      element('div', {}, 'expert ' + expert + ': ', element('b', {}, times(this.bytes[bin * this.layer.experts + expert])))]);
  }
}

function drawExperts() {
  if (!heatmaps.length) return;
  const colors = palette();
  for (const heatmap of heatmaps) heatmap.draw(colors);
  const ramp = element('canvas', {width: 129, height: 1}), context = ramp.getContext('2d'), image = context.createImageData(129, 1);
  for (let i = 0; i < 129; i++) image.data.set([...shade(128 + (i - 64) / 64 * 32 * reach, colors), 255], 4 * i);
  context.putImageData(image, 0, 0);
  const tick = f => element('span', {}, short(+(2 ** f).toPrecision(2)) + '×');
  const dead = heatmaps.some(h => h.bytes.includes(0));
  $('scale').replaceChildren(
    element('div', {className: 'ramp'}, ramp, element('div', {className: 'ticks'}, ...[-1, -.5, 0, .5, 1].map(f => tick(f * reach)))),
    dead ? element('span', {}, element('i', {className: 'swatch', style: 'background:rgb(' + colors.dead + ')'}), 'no token') : '');
}

function addExperts() {
  if (!run.loads || !run.loads.from.length) return;
  $('experts').hidden = false;
  for (const layer of run.loads.layers) new Heatmap(layer, $('heatmaps'));
  // The colours reach as far as all but a few of the loads do.
  const counts = new Array(256).fill(0);
  let total = 0;
  for (const h of heatmaps) for (const b of h.bytes) if (b) { counts[Math.abs(b - 128)]++; total++; }
  let seen = 0, bound = 0;
  while (bound < 128 && (seen += counts[bound]) < total * .985) bound++;
  reach = [1, 2, 3, 4].find(r => r * 32 >= bound) || 4;
  drawExperts();
}

// ---------------------------------------------------------------- figures, tables
// Of an RL run: where it began and where it got to.
function addRlFigures(f, add) {
  const percent = v => (100 * v).toFixed(1) + ' %', steps = 'first and last ' + (f.rl_mean_steps > 1 ? f.rl_mean_steps + ' steps' : 'step');
  const change = (from, to, text) => from == null ? text(to) : text(from) + ' → ' + text(to);
  if (f.eval_pass_at_1 != null) {
    const once = f.eval_step === f.eval_step_first, better = f.eval_pass_at_1 > f.eval_pass_at_1_first;
    // Of so many problems a share is known this well: 95 %, the normal approximation.
    const error = f.eval_problems ? 196 * Math.sqrt(f.eval_pass_at_1 * (1 - f.eval_pass_at_1) / f.eval_problems) : 0;
    add('Held-out pass@1', change(once ? null : f.eval_pass_at_1_first, f.eval_pass_at_1, percent), '', (once ? 'step ' + f.eval_step.toLocaleString('en') :
      'step ' + f.eval_step_first.toLocaleString('en') + ' → ' + f.eval_step.toLocaleString('en')) + (error ? ', ± ' + error.toFixed(1) + ' %' : ''), once ? '' : better ? 'good' : 'bad');
  } else if (f.pass_rate != null) add('Pass rate', change(f.pass_rate_first, f.pass_rate, percent), '', steps);
  if (f.eval_problems != null) add('Problems', f.eval_problems.toLocaleString('en'), '', 'held out');
  if (f.step != null) add('Steps', f.step.toLocaleString('en'), '', [f.total_steps ? 'of ' + f.total_steps.toLocaleString('en') : '', f.wall_seconds != null ? 'in ' + duration(f.wall_seconds) : ''].filter(Boolean).join(', '));
  if (f.reward_mean != null) add('Reward', change(f.reward_mean_first, f.reward_mean, v => v.toFixed(2)), '', steps);
  if (f.completion_tokens_mean != null) add('Completion', change(f.completion_tokens_mean_first, f.completion_tokens_mean, v => v.toFixed(0)), 'tokens', steps);
  if (f.logp_drift_max != null) add('Drift', short(+f.logp_drift_max.toPrecision(2)), 'nats', f.routing_mismatch == null ? 'greatest of the run' :
    f.routing_mismatch ? 'routed otherwise ' + short(100 * f.routing_mismatch) + ' %' : 'no token routed otherwise', f.routing_mismatch === 0 ? 'good' : '');
  if (f.generate_tokens_per_second != null) add('Generation', short(f.generate_tokens_per_second), 'tok/s', 'median step');
  if (f.skipped_steps) add('Skipped steps', String(f.skipped_steps), '', 'non-finite gradients', 'bad');
}
function addFigures() {
  const f = run.figures, host = $('figures');
  const add = (label, value, unit, note, mood) => host.append(element('div', {className: 'figure'},
    element('div', {className: 'label'}, label),
    element('div', {className: 'value'}, value, unit ? element('span', {className: 'unit'}, unit) : null),
    note ? element('div', {className: 'note ' + (mood || '')}, note) : null));
  if (isRl) return addRlFigures(f, add);
  if (f.loss != null) add('Last loss', f.loss.toFixed(3), 'nats', f.lm_loss != null && Math.abs(f.lm_loss - f.loss) > 5e-4 ?
    'next token ' + f.lm_loss.toFixed(3) : 'training, step ' + f.step.toLocaleString('en'));
  if (f.val_loss != null) add('Validation loss', f.val_loss.toFixed(3), 'nats', 'best, step ' + f.val_loss_step.toLocaleString('en'));
  if (f.val_bits_per_byte != null) {
    const gzip = f.gzip_bits_per_byte, better = gzip != null && f.val_bits_per_byte < gzip;
    add('Bits per byte', f.val_bits_per_byte.toFixed(3), '', gzip == null ? 'held-out text' :
      Math.abs(100 * (1 - f.val_bits_per_byte / gzip)).toFixed(0) + ' % ' + (better ? 'below' : 'above') + ' gzip -9 at ' + gzip.toFixed(3), better ? 'good' : gzip == null ? '' : 'bad');
  }
  if (f.tokens != null) add('Tokens', short(f.tokens), '', 'trained on');
  if (f.tokens_per_second != null) add('Throughput', short(f.tokens_per_second), 'tok/s', 'median step');
  if (f.wall_seconds != null) add('Wall time', duration(f.wall_seconds), '', 'training');
  if (f.max_vio != null) add('MaxVio', f.max_vio.toFixed(3), '', 'last 50 steps');
  if (f.skipped_steps != null) add('Skipped steps', String(f.skipped_steps), '', f.skipped_steps ? 'non-finite gradients' : 'none', f.skipped_steps ? 'bad' : '');
}

// Any JSON as tables: lists of objects get a column a key, objects a row a key.
function table(value) {
  const cell = v => v !== null && typeof v === 'object' ? table(v) : v === null ? '–' : typeof v === 'number' ? number(v) : String(v);
  const number = v => Number.isInteger(v) ? v.toLocaleString('en') : String(+v.toPrecision(6));
  const isObject = v => v !== null && typeof v === 'object' && !Array.isArray(v);
  if (value === null || typeof value !== 'object') return element('span', {}, cell(value));
  if (Array.isArray(value)) {
    if (!value.length) return element('span', {}, 'none');
    const rows = value.filter(isObject), rest = value.filter(v => !isObject(v));
    const keys = [...new Set(rows.flatMap(Object.keys))];
    const made = element('table', {});
    if (keys.length) made.append(element('tr', {}, ...keys.map(k => element('th', {className: rows.every(r => typeof (r[k] ?? 0) === 'number') ? 'number' : ''}, k))));
    for (const row of rows) made.append(element('tr', {}, ...keys.map(k => element('td', {className: typeof row[k] === 'number' ? 'number' : ''}, k in row ? cell(row[k]) : ''))));
    const simple = rest.every(v => typeof v !== 'object') && !rows.length;
    if (simple) return element('span', {}, rest.map(v => typeof v === 'number' ? number(v) : String(v)).join(', '));
    for (const v of rest) made.append(element('tr', {}, element('td', {colspan: String(Math.max(1, keys.length))}, cell(v))));
    return made;
  }
  const made = element('table', {});
  for (const [key, v] of Object.entries(value)) made.append(element('tr', {}, element('th', {}, key), element('td', {}, cell(v))));
  return made;
}
function fold(id, content, count) {
  const host = $(id);
  host.hidden = false;
  if (count != null) host.querySelector('summary').append(element('span', {className: 'count'}, String(count)));
  if (content) host.append(element('div', {className: 'scroll'}, content));
}
// A card's plain entries as one table, its lists below each with a heading.
function card(value) {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return table(value);
  const made = element('div', {}), plain = {}, large = [];
  for (const [key, v] of Object.entries(value)) if (v !== null && typeof v === 'object') large.push([key, v]); else plain[key] = v;
  if (Object.keys(plain).length) made.append(table(plain));
  for (const [key, v] of large) made.append(element('h4', {}, key), table(v));
  return made;
}
function eventText(e) {
  if (e.text) return e.text;
  if (e.total_steps != null) return (e.event === 'resumed' ? 'after step ' + e.step + ', to go on' : 'to go') + ' to step ' + e.total_steps;
  return '';
}
function addTables() {
  if (run.events.length) {
    const rows = run.events.map(e => element('tr', {}, element('td', {className: 'number'}, e.step == null ? '' : e.step.toLocaleString('en')),
      element('td', {className: 'fixed'}, e.event || ''), element('td', {}, eventText(e)), element('td', {className: 'fixed'}, e.time ? e.time.replace('T', ' ').replace('Z', ' UTC') : '')));
    fold('events', element('table', {className: 'full'}, element('tr', {}, element('th', {className: 'number'}, 'step'), element('th', {}, 'event'), element('th', {}, ''), element('th', {}, 'when')), ...rows), run.events.length);
  }
  if (run.summary !== null) fold('summary', card(run.summary));
  if (run.checkpoints.length) fold('checkpoints', element('table', {}, ...run.checkpoints.map(c =>
    element('tr', {}, element('td', {}, c.name), element('td', {className: 'number'}, bytes(c.bytes))))), run.checkpoints.length);
  if (run.data_card !== null) fold('card', card(run.data_card));
  if (run.config !== null) { fold('config'); $('config').querySelector('pre').textContent = run.config; }
}

// ---------------------------------------------------------------- the page
function addCharts() {
  const claimed = new Set(), all = Object.keys(run.curves);
  for (const spec of CHARTS) {
    if (spec.needs && !all.includes(spec.needs)) continue;
    if (spec.rl != null && spec.rl !== isRl) continue;
    const keys = spec.keys.flatMap(k => k.endsWith('*') ? all.filter(a => a.startsWith(k.slice(0, -1))) : k.split('|').filter(a => all.includes(a)).slice(0, 1));
    keys.forEach(k => claimed.add(k));
    if (keys.length) new Chart({...spec, keys}, $(spec.lead ? 'lead' : 'charts'));
  }
  const others = all.filter(k => !claimed.has(k));
  if (others.length) fold('other', null, others.length);
  for (const key of others) new Chart({title: key, keys: [key], size: 'third'}, $('other-charts'));
  $('empty').hidden = all.length > 0;
}
function setSmoothing() { smoothing = ($('smoothing').value / 100) ** 2 * .06; for (const chart of charts) chart.draw(); }
function setTheme(theme) { document.documentElement.dataset.theme = theme; drawExperts(); drawSamples(); }

const dark = matchMedia('(prefers-color-scheme: dark)');
setTheme(dark.matches ? 'dark' : 'light');
dark.addEventListener('change', () => setTheme(dark.matches ? 'dark' : 'light'));
$('theme').onclick = () => setTheme(document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark');
$('zoom-out').onclick = () => zoom(whole);
$('smoothing').oninput = setSmoothing;
let before = null;  // on paper: light, and nothing folded away
addEventListener('beforeprint', () => {
  before = {theme: document.documentElement.dataset.theme, closed: [...document.querySelectorAll('details:not([open])')]};
  for (const details of before.closed) details.open = true;
  setTheme('light');
  for (const chart of charts) if (!chart.width) chart.draw();
});
addEventListener('afterprint', () => { for (const details of before.closed) details.open = false; setTheme(before.theme); });

document.title = run.name + ' · Cohort';
$('name').textContent = run.name;
const steps = run.figures.step;
$('subtitle').textContent = [run.dir, steps == null ? null : 'step ' + steps.toLocaleString('en') + (run.figures.total_steps ? ' of ' + run.figures.total_steps.toLocaleString('en') : '')].filter(Boolean).join('  ·  ');
$('footer').textContent = 'Written by cohort report, ' + run.written + '. Drag over a chart to zoom, double-click for the whole run.';
addFigures();
addCharts();
addSamples();
setSmoothing();
addExperts();
addTables();
)js";

}  // namespace cohort::core
