// First part of the report page's script: the run's scalars as SVG charts that share one range of
// steps and one cursor. Text of the run reaches the page through textContent alone, so none of it
// can be markup. A further chart is one more entry of CHARTS.
#pragma once

namespace cohort::core {

inline constexpr char kReportCharts[] = R"js(
'use strict';
const run = JSON.parse(document.getElementById('run').textContent);
const $ = id => document.getElementById(id);

// What is drawn, in this order. A chart claims the keys of metrics.jsonl it names ('reward/*': all that
// begin so; 'lm_loss|loss': the first the run has) and is left out when the run has none of them; a key
// nobody claims gets a small chart under "Other metrics". scale: 'log' or 'linear' to begin with; zero:
// the axis starts at 0; percent: a share, said in hundredths; exact: neither smoothed nor banded; rule: a
// figure drawn as a line; needs: a key without which there is no such chart; rl: only of RL runs (true) or
// only of others (false); lead: above the completions.
const isRl = ['reward_mean', 'eval_pass_at_1'].some(key => key in run.curves);
const CHARTS = [
  {title: 'Right answers', unit: 'share of completions', size: 'wide', keys: ['pass_rate', 'eval_pass_at_1'], percent: true, zero: true, lead: true,
   names: {pass_rate: 'training', eval_pass_at_1: 'held-out problems, pass@1'}},
  {title: 'Reward', unit: 'mean of a step', keys: ['reward_mean', 'eval_reward_mean'],
   names: {reward_mean: 'training', eval_reward_mean: 'held out'}},
  {title: 'Reward components', unit: 'before their weights', keys: ['reward/*']},
  {title: 'Completion length', unit: 'tokens, mean', size: 'third', keys: ['completion_tokens_mean'], zero: true},
  {title: 'Cut by length', unit: 'share', size: 'third', keys: ['truncated_fraction'], percent: true, zero: true},
  {title: 'Entropy', unit: 'nats a token', size: 'third', keys: ['entropy'], zero: true},
  {title: 'Clipped tokens', unit: 'share', size: 'third', keys: ['clip_fraction'], percent: true, zero: true},
  {title: 'KL to the reference', unit: 'nats a token', size: 'third', keys: ['kl'], zero: true},
  {title: 'Policy loss', size: 'third', keys: ['loss'], rl: true},
  {title: 'Log-probability drift', unit: 'sampling − training, greatest', size: 'third', scale: 'log', keys: ['logp_drift_max']},
  {title: 'Routing mismatch', unit: 'share', size: 'third', keys: ['routing_mismatch'], percent: true, zero: true},
  {title: 'Groups of one reward', unit: 'share, teach nothing', size: 'third', keys: ['degenerate_groups'], percent: true, zero: true},
  {title: 'Time of a step', unit: 'seconds', keys: ['generate_seconds', 'reward_seconds', 'train_seconds'], zero: true,
   names: {generate_seconds: 'generation', reward_seconds: 'rewards', train_seconds: 'training'}},
  {title: 'Loss', rl: false, unit: 'nats a token, next token', size: 'wide', scale: 'log', keys: ['lm_loss|loss', 'val_loss'],
   names: {lm_loss: 'training', loss: 'training', val_loss: 'validation'}},
  {title: 'Bits per byte', unit: 'held-out text, less is better', keys: ['val_bits_per_byte'],
   names: {val_bits_per_byte: 'model'}, rule: {figure: 'gzip_bits_per_byte', name: 'gzip -9'}},
  {title: 'Training objective', unit: 'nats a token', scale: 'log', keys: ['loss', 'mtp_loss'], needs: 'mtp_loss',
   names: {loss: 'all terms', mtp_loss: 'multi-token'}},
  {title: 'Throughput', unit: 'tokens a second', keys: ['tokens_per_second', 'generate_tokens_per_second'], zero: true,
   names: {tokens_per_second: 'training', generate_tokens_per_second: 'generation'}},
  {title: 'Gradient norm', unit: 'before clipping', keys: ['grad_norm'], scale: 'log', rl: false},
  {title: 'Gradient norm', unit: 'before clipping', keys: ['grad_norm'], scale: 'log', size: 'third', rl: true},
  {title: 'Learning rate', keys: ['lr'], size: 'third', zero: true, exact: true},
  {title: 'MaxVio', unit: 'greatest load / mean − 1', keys: ['max_vio'], size: 'third', zero: true},
  {title: 'Balance loss', keys: ['balance_loss'], size: 'third'},
];

// ---------------------------------------------------------------- numbers and elements
function short(v) {
  if (v === 0) return '0';
  const a = Math.abs(v);
  if (a < 1e15) for (const [size, sign] of [[1e12, 'T'], [1e9, 'B'], [1e6, 'M'], [1e4, 'k']])
    if (a >= size) return trim((v / (sign === 'k' ? 1e3 : size)).toPrecision(a / (sign === 'k' ? 1e3 : size) >= 100 ? 4 : 3)) + sign;
  if (a < 1e-3 || a >= 1e15) return v.toExponential(2).replace(/\.?0+e/, 'e');
  return a >= 1000 ? String(Math.round(v)) : trim(v.toPrecision(4));
}
const trim = text => text.includes('.') ? text.replace(/\.?0+$/, '') : text;
function duration(s) {
  s = Math.round(s);
  if (s < 60) return s + 's';
  if (s < 3600) return Math.floor(s / 60) + 'm ' + (s % 60) + 's';
  if (s < 86400) return Math.floor(s / 3600) + 'h ' + Math.floor(s / 60 % 60) + 'm';
  return Math.floor(s / 86400) + 'd ' + Math.floor(s / 3600 % 24) + 'h';
}
function bytes(n) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let i = 0;
  for (; n >= 1024 && i < 4; ++i) n /= 1024;
  return trim(n.toPrecision(n >= 1000 ? 4 : 3)) + ' ' + units[i];
}
function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {}))
    if (key in made && typeof value !== 'string') made[key] = value;
    else made.setAttribute(key === 'className' ? 'class' : key, value);
  made.append(...children.filter(child => child != null));
  return made;
}
const color = i => 'var(--c' + i % 6 + ')';
const clamp = (v, lo, hi) => Math.min(hi, Math.max(lo, v));

// ---------------------------------------------------------------- series
// A centred moving average over `half` points each way, taken twice, which weighs the points as a
// triangle does; at the start the window stays symmetric, so that the first steep descent is not
// flattened.
function smoothed(y, half) {
  const once = values => {
    const sums = [0];
    for (const v of values) sums.push(sums[sums.length - 1] + v);
    return values.map((_, i) => {
      const a = Math.max(0, i - half), b = Math.min(values.length - 1, i + Math.min(half, i));
      return (sums[b + 1] - sums[a]) / (b + 1 - a);
    });
  };
  return once(once(y));
}
// Index of the value nearest to `step`.
function nearest(x, step) {
  let lo = 0, hi = x.length - 1;
  while (hi - lo > 1) { const mid = (lo + hi) >> 1; if (x[mid] < step) lo = mid; else hi = mid; }
  return Math.abs(x[lo] - step) <= Math.abs(x[hi] - step) ? lo : hi;
}
const SPARSE = 80;  // fewer values than this are drawn with a dot each and not smoothed

// ---------------------------------------------------------------- axes
function linearTicks(lo, hi, count) {
  const rough = (hi - lo) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map(m => m * power).find(s => s >= rough * .999);
  const ticks = [];
  for (let i = Math.ceil(lo / step - 1e-9); i * step <= hi + step * 1e-9 && ticks.length < 50; ++i) ticks.push(+(i * step).toPrecision(12));
  return ticks;
}
function logTicks(lo, hi, count) {
  const decades = Math.log10(hi / lo);
  const multiples = decades > count ? [1] : decades > 1.3 ? [1, 3] : count > 5 && decades < 1 ? [1, 2, 3, 4, 5, 6, 7, 8, 9] : [1, 2, 3, 5, 7];
  const stride = Math.max(1, Math.ceil(decades / count));
  const ticks = [];
  for (let d = Math.floor(Math.log10(lo)); d <= Math.log10(hi); d++)
    if (d % stride === 0) for (const m of multiples) { const t = m * 10 ** d; if (t >= lo && t <= hi) ticks.push(+t.toPrecision(3)); }
  return ticks.length >= 2 ? ticks : linearTicks(lo, hi, count);
}

// ---------------------------------------------------------------- charts
const charts = [];
const whole = [Infinity, -Infinity];  // steps of all curves
for (const curve of Object.values(run.curves)) if (curve.x.length) {
  whole[0] = Math.min(whole[0], curve.x[0]);
  whole[1] = Math.max(whole[1], curve.x[curve.x.length - 1]);
}
if (whole[0] === whole[1]) { whole[0] -= 1; whole[1] += 1; }
let domain = [...whole];  // steps in view
let smoothing = 0;        // half window, as a share of the run

class Chart {
  constructor(spec, host) {
    this.spec = spec;
    this.text = spec.percent ? v => short(+(100 * v).toPrecision(3)) + ' %' : short;
    this.log = spec.scale === 'log';
    this.series = spec.keys.map((key, i) => ({key, name: (spec.names || {})[key] || key, color: color(i), ...run.curves[key]}));
    const rule = spec.rule && run.figures[spec.rule.figure];
    if (rule != null) this.rule = {value: rule, name: spec.rule.name};
    // Running totals have no noise, and a smoothed step would be a lie.
    // Held-out figures are each a mean over much text already.
    for (const s of this.series) s.exact = spec.exact || /^(val|eval)_/.test(s.key) || s.y.every((v, i) => i === 0 || v >= s.y[i - 1]);
    this.legend = element('div', {className: 'legend'});
    this.values = this.series.map(s => element('b', {}));
    this.series.forEach((s, i) => this.legend.append(element('span', {},
      element('i', {className: 'key', style: 'border-color:' + s.color}), this.series.length > 1 || this.rule ? s.name + ' ' : '', this.values[i])));
    if (this.rule) this.legend.append(element('span', {},
      element('i', {className: 'key dashed', style: 'border-color:var(--soft)'}), this.rule.name + ' ', element('b', {}, this.text(this.rule.value))));
    this.button = element('button', {title: 'Linear or logarithmic axis'});
    this.button.onclick = () => { this.log = !this.log; this.draw(); };
    this.plot = element('div', {className: 'plot'});
    host.append(element('div', {className: 'chart ' + (spec.size || '')},
      element('div', {className: 'head'}, element('h3', {}, spec.title), spec.unit ? element('span', {className: 'unit'}, spec.unit) : null,
        this.legend), this.plot));
    this.legend.append(this.button);
    charts.push(this);
    new ResizeObserver(() => { if (this.plot.clientWidth && Math.abs(this.plot.clientWidth - this.width) > 1) this.draw(); }).observe(this.plot);
    this.plot.addEventListener('pointermove', event => this.move(event));
    this.plot.addEventListener('pointerleave', () => { if (this.from == null) setCursor(null); });
    this.plot.addEventListener('pointerdown', event => { if (event.button === 0 && event.pointerType === 'mouse') { this.from = this.stepAt(event); this.plot.setPointerCapture(event.pointerId); event.preventDefault(); } });
    this.plot.addEventListener('pointerup', event => this.release(event));
    this.plot.addEventListener('dblclick', () => zoom(whole));
  }

  // Screen position of a step and of a value.
  px(step) { return this.left + (step - domain[0]) / (domain[1] - domain[0]) * (this.width - this.left - this.right); }
  py(v) {
    const f = this.logged ? Math.log(v / this.lo) / Math.log(this.hi / this.lo) : (v - this.lo) / (this.hi - this.lo);
    return this.top + (1 - f) * (this.height - this.top - this.bottom);
  }
  stepAt(event) {
    const box = this.plot.getBoundingClientRect(), x = (event.clientX - box.left) * this.width / box.width;
    return clamp(domain[0] + (x - this.left) / (this.width - this.left - this.right) * (domain[1] - domain[0]), ...domain);
  }

  // What is drawn of each series, and the range of values.
  measure() {
    let lo = Infinity, hi = -Infinity, positive = true;
    const take = v => { if (v != null) { lo = Math.min(lo, v); hi = Math.max(hi, v); if (v <= 0) positive = false; } };
    for (const s of this.series) {
      let a = 0, b = s.x.length - 1;
      while (a < b && s.x[a + 1] < domain[0]) a++;
      while (b > a && s.x[b - 1] > domain[1]) b--;
      s.a = a; s.b = b;
      for (let i = a; i <= b; i++) if (s.x[i] >= domain[0] && s.x[i] <= domain[1]) { take(s.y[i]); if (s.lo && !this.spec.exact) { take(s.lo[i]); take(s.hi[i]); } }
    }
    if (this.rule) take(this.rule.value);
    if (lo > hi) { lo = 0; hi = 1; }
    this.canLog = positive && hi > lo * 1.2;
    this.logged = this.log && this.canLog;
    for (const s of this.series) {
      s.sparse = s.x.length < SPARSE;
      s.plain = s.exact || s.sparse || smoothing === 0;
      const half = Math.max(1, Math.round(smoothing * s.x.length));
      // A mean of logarithms where the axis is one: a lone spike does not lift its surroundings.
      const logs = this.logged && s.y.every(v => v > 0);
      s.line = s.plain ? s.y : logs ? smoothed(s.y.map(Math.log), half).map(Math.exp) : smoothed(s.y, half);
    }
    if (this.logged) { const room = (hi / lo) ** .06; this.lo = lo / room; this.hi = hi * room; return; }
    if (this.spec.zero && lo >= 0) lo = 0;
    if (this.spec.zero && hi === 0) hi = this.spec.percent ? .01 : 1;
    if (hi - lo < 1e-9 * Math.abs(hi) || hi === lo) { const room = Math.abs(hi) * .1 || 1; lo -= room; hi += room; }
    const room = (hi - lo) * .07;
    this.lo = lo === 0 ? 0 : lo >= 0 && lo - room < 0 ? 0 : lo - room;
    this.hi = hi + room;
  }

  draw() {
    this.width = this.plot.clientWidth;
    if (!this.width) return;
    this.height = this.spec.size === 'wide' ? 330 : this.spec.size === 'third' ? 190 : 220;
    this.measure();
    this.button.hidden = !this.canLog;
    this.button.textContent = this.logged ? 'log' : 'linear';
    this.top = 10; this.bottom = 22; this.right = 12;
    const yTicks = (this.logged ? logTicks : linearTicks)(this.lo, this.hi, this.height > 300 ? 6 : 4);
    const [factor, sign] = this.spec.percent ? [100, ' %'] : [1, ''];
    const yTexts = tickTexts(yTicks.map(t => factor * t), this.logged).map(t => t + sign);
    this.left = Math.max(...yTexts.map(t => t.length), 2) * 6.3 + 12;
    const X = v => this.px(v).toFixed(1), Y = v => clamp(this.py(v), -50, this.height + 50).toFixed(1);
    const parts = [];
    yTicks.forEach((t, i) => parts.push(`<line class="grid" x1="${this.left}" x2="${this.width - this.right}" y1="${Y(t)}" y2="${Y(t)}"/>`,
      `<text x="${this.left - 7}" y="${Y(t)}" dy="3.5" text-anchor="end">${yTexts[i]}</text>`));
    const xTicks = linearTicks(domain[0], domain[1], Math.max(2, this.width / 90)).filter(Number.isInteger);
    const bottom = this.height - this.bottom;
    parts.push(`<line class="axis" x1="${this.left}" x2="${this.width - this.right}" y1="${bottom}" y2="${bottom}"/>`);
    parts.push(`<text x="${this.left}" y="${bottom + 15}">step</text>`);
    for (const t of xTicks) {
      const x = this.px(t), end = x > this.width - 24 ? 'end' : 'middle';
      if (x > this.left + 45) parts.push(`<text x="${end === 'end' ? this.width - 2 : x.toFixed(1)}" y="${bottom + 15}" text-anchor="${end}">${short(t)}</text>`);
    }
    const clip = 'clip' + charts.indexOf(this);
    parts.push(`<clipPath id="${clip}"><rect x="${this.left - 4}" y="0" width="${this.width - this.left - this.right + 8}" height="${bottom + 1}"/></clipPath><g clip-path="url(#${clip})">`);
    for (const e of run.events) if (e.event === 'resumed')
      parts.push(`<line class="event" x1="${X(e.step)}" x2="${X(e.step)}" y1="${this.top}" y2="${bottom}"/>`);
    for (const s of this.series) parts.push(this.paths(s, X, Y));
    if (this.rule) {
      const y = this.py(this.rule.value), above = y > this.top + 18;
      parts.push(`<line class="rule" x1="${this.left}" x2="${this.width - this.right}" y1="${y}" y2="${y}"/>`,
        `<text class="rule-label" x="${this.width - this.right - 2}" y="${y + (above ? -6 : 14)}" text-anchor="end">${this.rule.name} ${this.text(this.rule.value)}</text>`);
    }
    parts.push('</g><g class="over"></g>');
    this.plot.innerHTML = `<svg viewBox="0 0 ${this.width} ${this.height}" role="img" aria-label="${this.spec.keys.length} curve(s) over the steps">${parts.join('')}</svg>`;
    this.over = this.plot.querySelector('.over');
    this.point();
  }

  paths(s, X, Y) {
    if (!s.x.length) return '';
    const trace = y => { let d = ''; for (let i = s.a; i <= s.b; i++) if (y[i] != null) d += (d ? 'L' : 'M') + X(s.x[i]) + ' ' + Y(y[i]); return d; };
    let out = '';
    if (s.lo && !this.spec.exact) {
      let back = '';
      for (let i = s.b; i >= s.a; i--) back += 'L' + X(s.x[i]) + ' ' + Y(s.lo[i]);
      out += `<path class="band" style="fill:${s.color}" d="${trace(s.hi)}${back}Z"/>`;
    }
    if (!s.plain) out += `<path class="raw" style="stroke:${s.color}" d="${trace(s.y)}"/>`;
    out += `<path class="smooth" style="stroke:${s.color}" d="${trace(s.line)}"/>`;
    if (s.sparse) for (let i = s.a; i <= s.b; i++)
      if (s.y[i] != null) out += `<circle cx="${X(s.x[i])}" cy="${Y(s.y[i])}" r="${s.x.length > 40 ? 2 : 2.8}" style="fill:${s.color}"/>`;
    return out;
  }

  // The cursor line, its dots, and the values of the legend: at the cursor, else the last ones.
  point() {
    if (!this.over) return;
    const step = cursor == null ? null : clamp(cursor, ...domain);
    let marks = step == null ? '' : `<line class="cursor" x1="${this.px(step)}" x2="${this.px(step)}" y1="${this.top}" y2="${this.height - this.bottom}"/>`;
    this.series.forEach((s, k) => {
      if (!s.x.length) return;
      const i = step == null ? s.x.length - 1 : nearest(s.x, step);
      this.values[k].textContent = s.y[i] == null ? '' : this.text(s.y[i]);
      if (step != null && s.line[i] != null && s.x[i] >= domain[0] && s.x[i] <= domain[1])
        marks += `<circle class="dot" cx="${this.px(s.x[i])}" cy="${clamp(this.py(s.line[i]), 0, this.height)}" r="4" style="fill:${s.color}"/>`;
    });
    if (this.from != null && step != null) {
      const a = this.px(Math.min(this.from, step)), b = this.px(Math.max(this.from, step));
      marks += `<rect class="drag" x="${a}" width="${b - a}" y="${this.top}" height="${this.height - this.top - this.bottom}"/>`;
    }
    this.over.innerHTML = marks;
  }

  move(event) {
    setCursor(this.stepAt(event));
    const main = this.series.find(s => s.x.length && !s.sparse) || this.series[0];
    if (!main || !main.x.length) return;
    const at = main.x[nearest(main.x, cursor)];
    const lines = [element('div', {className: 'step'}, 'step ' + at.toLocaleString('en'))];
    for (const s of this.series) if (s.x.length) {
      const i = nearest(s.x, cursor);
      const spread = s.lo && s.hi[i] > s.lo[i] ? ' (' + this.text(s.lo[i]) + ' to ' + this.text(s.hi[i]) + ')' : '';
      const away = s.sparse && s.x[i] !== at ? ' at step ' + s.x[i].toLocaleString('en') : '';
      const mean = !s.plain ? ', smoothed ' + this.text(s.line[i]) : '';
      lines.push(element('div', {}, element('i', {className: 'key', style: 'border-color:' + s.color}), this.series.length > 1 ? s.name + ' ' : '',
        element('b', {}, this.text(s.y[i])), spread + mean + away));
    }
    showTip(event, lines);
  }

  release(event) {
    const from = this.from, to = this.stepAt(event);
    this.from = null;
    if (from != null && Math.abs(to - from) > Math.max(2, (domain[1] - domain[0]) * .01)) zoom([Math.min(from, to), Math.max(from, to)]);
    else this.point();
  }
}

// Texts of one axis all have the same number of decimals.
function tickTexts(ticks, logged) {
  if (logged || !ticks.length) return ticks.map(short);
  const largest = Math.max(...ticks.map(Math.abs));
  if (largest >= 1e4 || largest < 1e-2) return ticks.map(short);
  const decimals = Math.max(...ticks.map(t => (trim(t.toFixed(6)).split('.')[1] || '').length));
  return ticks.map(t => t.toFixed(decimals));
}

// ---------------------------------------------------------------- what charts share
let cursor = null;  // step under the pointer
function setCursor(step) {
  cursor = step;
  if (step == null) $('tip').hidden = true;
  for (const chart of charts) chart.point();
  for (const heatmap of heatmaps) heatmap.point();
}
function showTip(event, lines) {
  const tip = $('tip');
  tip.replaceChildren(...lines);
  tip.hidden = false;
  const right = event.clientX + 18 + tip.offsetWidth < innerWidth;
  tip.style.left = (right ? event.clientX + 16 : event.clientX - 16 - tip.offsetWidth) + 'px';
  tip.style.top = clamp(event.clientY + 16, 0, innerHeight - tip.offsetHeight - 4) + 'px';
}
function zoom(to) {
  domain = [...to];
  $('zoom-out').hidden = domain[0] === whole[0] && domain[1] === whole[1];
  for (const chart of charts) chart.draw();
}

)js";

}  // namespace cohort::core
