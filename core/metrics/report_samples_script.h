// The part of the report page's script that shows sampled completions: a mosaic of rewards over the
// steps, and three steps side by side. It stands between report_charts.h and report_script.h.
// Completions reach the page through text nodes alone, so none of them can be markup.
#pragma once

namespace cohort::core {

inline constexpr char kReportSamplesScript[] = R"js(
// ---------------------------------------------------------------- sampled completions
const samples = run.samples;
const view = {steps: [], needle: '', show: 'all', kind: 'all', rows: 3, each: 2};  // what is looked at

// Control characters and those that turn the direction of text are shown, not obeyed.
function visible(text) {
  return text.replace(/\r\n/g, '\n').replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g,
    c => '‹U+' + c.charCodeAt(0).toString(16).toUpperCase().padStart(4, '0') + '›');
}
const pieces = text => Array.isArray(text) ? [text[0], text[1]] : [text || ''];
const plain = text => pieces(text).map(visible).join('\n');
// A text as nodes: what is searched for is marked, what was cut out is said.
function textNodes(text, skip = [0, 0]) {
  const nodes = [], parts = pieces(text).map(visible);
  if (skip[0] || skip[1]) parts[0] = parts[0].slice(skip[0], parts[0].length - skip[1]);
  parts.forEach((part, i) => {
    if (i) nodes.push(element('span', {className: 'left-out'}, ' … ' + text[2].toLocaleString('en') + ' bytes left out … '));
    const pattern = needle();
    if (!pattern) return void nodes.push(part);
    let end = 0;
    for (const found of part.matchAll(pattern)) {
      nodes.push(part.slice(end, found.index), element('mark', {}, found[0]));
      end = found.index + found[0].length;
    }
    nodes.push(part.slice(end));
  });
  return nodes;
}
const needle = () => view.needle ? new RegExp(view.needle.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'), 'gi') : null;

// What all prompts begin and end with, from word to word: said once, not with each problem.
const template = {head: '', tail: ''};
function findTemplate() {
  const prompts = samples.problems.map(p => Array.isArray(p.prompt) ? '' : visible(p.prompt));
  if (prompts.length < 3) return;
  let [head, tail] = [prompts[0], prompts[0]];
  for (const p of prompts) {
    while (!p.startsWith(head)) head = head.slice(0, -1);
    while (!p.endsWith(tail)) tail = tail.slice(1);
  }
  head = head.slice(0, head.search(/\S*$/));
  tail = tail.slice(Math.max(0, tail.search(/\s/)));
  if (!/\s/.test(tail)) tail = '';
  const shortest = Math.min(...prompts.map(p => p.length));
  if (head.length + tail.length >= shortest) return;
  if (head.length >= 12) template.head = head;
  if (tail.length >= 12) template.tail = tail;
}
function promptNodes(problem) {
  const nodes = textNodes(problem.prompt, [template.head.length, template.tail.length]);
  if (template.head) nodes.unshift(element('span', {className: 'left-out', title: template.head}, '… '));
  if (template.tail) nodes.push(element('span', {className: 'left-out', title: template.tail}, ' …'));
  return nodes;
}

// ---- colours: from the least reward over the middle to the greatest
const rewardEnds = [0, 1];
function rewardColor(reward, colors) {
  if (reward == null) return colors.mid;
  const t = clamp((reward - rewardEnds[0]) / (rewardEnds[1] - rewardEnds[0]), 0, 1), end = t < .5 ? colors.worst : colors.best;
  return colors.mid.map((m, i) => m + (end[i] - m) * Math.abs(2 * t - 1) ** .8);
}
function rewardPalette() {
  const style = getComputedStyle(document.documentElement);
  const rgb = name => style.getPropertyValue(name).split(',').map(Number);
  return {worst: rgb('--worst'), mid: rgb('--mid'), best: rgb('--best')};
}
function findRewardEnds() {
  // All but a few lie between the ends: one wild reward does not take the colours of the others.
  const rewards = samples.shown.map(s => s.reward).filter(r => r != null).sort((a, b) => a - b);
  if (!rewards.length) return;
  const at = share => rewards[Math.round(share * (rewards.length - 1))];
  let [lo, hi] = [at(.02), at(.98)];
  if (lo === hi) [lo, hi] = [rewards[0], rewards[rewards.length - 1]];
  // Where all are wrong (or right), the colours still say so.
  if (!samples.shown.some(s => s.right)) hi = Math.max(hi, 1);
  if (samples.shown.every(s => s.right)) lo = Math.min(lo, 0);
  if (lo === hi) hi = lo + 1;
  rewardEnds.splice(0, 2, lo, hi);
}

// ---- what passes the filters
function matches(sample) {
  if (view.show !== 'all' && sample.right !== (view.show === 'right')) return false;
  if (view.kind !== 'all' && sample.held_out !== (view.kind === 'held out')) return false;
  const pattern = needle(), problem = samples.problems[sample.problem];
  return !pattern || [problem.prompt, problem.answer, sample.completion, problem.id].some(text => plain(text).search(pattern) >= 0);
}
const stepText = step => 'step ' + step.toLocaleString('en');
const sampleSteps = samples ? [...new Set(samples.shown.map(s => s.step))] : [];

// ---- the mosaic: a column a step, its samples by reward, the best below
function drawMosaic(colors) {
  const columns = sampleSteps.map((step, i) => {
    const here = samples.shown.filter(s => s.step === step).sort((a, b) => (a.reward ?? -Infinity) - (b.reward ?? -Infinity));
    const cells = here.map(s => element('i', {className: matches(s) ? '' : 'faded', style: 'background:rgb(' + rewardColor(s.reward, colors) + ')'}));
    const picked = view.steps.includes(step), every = Math.ceil(sampleSteps.length / 12);
    const near = view.steps.some(s => s !== step && Math.abs(sampleSteps.indexOf(s) - i) < every * .8);
    const label = picked || (i % every === 0 && !near) ? step.toLocaleString('en') : '';
    const column = element('button', {className: picked ? 'picked' : '', 'aria-label': stepText(step)},
      element('span', {className: 'stack'}, ...cells), element('span', {className: 'label'}, label));
    column.onclick = () => {
      // The nearest of the steps side by side gives way; they stay in order.
      let k = 0;
      for (let j = 1; j < view.steps.length; j++)
        if (Math.abs(sampleSteps.indexOf(view.steps[j]) - i) < Math.abs(sampleSteps.indexOf(view.steps[k]) - i)) k = j;
      pick(k, step);
    };
    column.onpointermove = event => {
      const all = here.filter(matches), right = all.filter(s => s.right).length;
      showTip(event, [element('div', {className: 'step'}, stepText(step)),
        element('div', {}, all.length + ' shown of it, ', element('b', {}, right + ' right'))]);
    };
    column.onpointerleave = () => { $('tip').hidden = true; };
    return column;
  });
  $('mosaic').replaceChildren(...columns);
}
function pick(k, step) { if (!view.steps.includes(step)) view.steps[k] = step; view.steps.sort((a, b) => a - b); drawSamples(); }

function drawRewardScale(colors) {
  const ramp = element('canvas', {width: 65, height: 1}), context = ramp.getContext('2d'), image = context.createImageData(65, 1);
  const at = f => rewardEnds[0] + f * (rewardEnds[1] - rewardEnds[0]);
  for (let i = 0; i < 65; i++) image.data.set([...rewardColor(at(i / 64), colors), 255], 4 * i);
  context.putImageData(image, 0, 0);
  $('reward-scale').replaceChildren(element('span', {}, 'reward'), element('div', {className: 'ramp'}, ramp,
    element('div', {className: 'ticks'}, ...[0, .5, 1].map(f => element('span', {}, short(+at(f).toPrecision(3)))))));
}

// ---- one completion
function sampleCard(sample, colors, withPrompt) {
  const problem = samples.problems[sample.problem], color = rewardColor(sample.reward, colors).map(Math.round);
  const facts = Object.entries(sample.rewards).map(([name, value]) => name + ' ' + (value == null ? '–' : short(value)));
  if (sample.tokens != null) facts.push(sample.tokens + ' tokens');
  if (sample.advantage != null) facts.push('advantage ' + (sample.advantage > 0 ? '+' : '') + short(+sample.advantage.toPrecision(2)));
  return element('article', {style: `border-left-color:rgb(${color});background:rgba(${color},.09)`},
    element('div', {className: 'facts'},
      element('b', {}, (sample.right ? '✓ ' : '✗ ') + (sample.reward == null ? 'no reward' : short(sample.reward))),
      element('span', {}, facts.join(' · ')), sample.truncated ? element('span', {className: 'badge'}, 'cut by length') : null),
    withPrompt ? problemLine(problem, sample.held_out) : null,
    sample.completion === '' ? element('p', {className: 'hint'}, '(empty)') : element('div', {className: 'text'}, ...textNodes(sample.completion)));
}
function problemLine(problem, heldOut) {
  return element('div', {className: 'problem'}, element('span', {className: 'prompt'}, ...promptNodes(problem)),
    problem.answer == null ? null : element('span', {className: 'answer'}, 'answer ', element('b', {}, ...textNodes(problem.answer))),
    element('span', {className: 'badge', title: problem.id}, heldOut ? 'held out' : 'training'));
}
function cards(list, colors, withPrompt, most) {
  const made = list.slice(0, most).map(s => sampleCard(s, colors, withPrompt));
  if (list.length > most) {
    const more = element('button', {className: 'more'}, list.length - most + ' more');
    more.onclick = () => { view.each += 8; drawSamples(); };
    made.push(more);
  }
  return made;
}

// ---- steps side by side: the problems that several of them have, then the others
function drawHeads() {
  const names = {[sampleSteps[0]]: 'Before', [sampleSteps[sampleSteps.length - 1]]: 'After'};
  $('sample-heads').replaceChildren(...view.steps.map((step, k) => {
    const here = samples.shown.filter(s => s.step === step && matches(s)), right = here.filter(s => s.right).length;
    const slider = element('input', {type: 'range', min: '0', max: String(sampleSteps.length - 1), 'aria-label': 'Step of column ' + (k + 1)});
    slider.value = sampleSteps.indexOf(step);
    slider.oninput = () => { $('sample-heads').children[k].querySelector('b').textContent = stepText(sampleSteps[slider.value]); };
    slider.onchange = () => pick(k, sampleSteps[slider.value]);
    return element('div', {}, element('span', {className: 'when'}, sampleSteps.length > 1 ? names[step] || 'During' : ''), element('b', {}, stepText(step)),
      element('span', {className: 'count'}, !here.length ? 'none match' : view.show === 'all' ? right + ' of ' + here.length + ' right' : here.length + ' ' + view.show), sampleSteps.length > 1 ? slider : null);
  }));
}
function drawSamples() {
  if (!samples) return;
  const colors = rewardPalette();
  drawMosaic(colors);
  drawRewardScale(colors);
  drawHeads();
  const found = samples.shown.filter(matches);
  $('sample-count').textContent = found.length === samples.shown.length ? '' : found.length + ' of ' + samples.shown.length + ' match';

  const columns = view.steps.map(step => samples.shown.filter(s => s.step === step));
  const seen = new Map();  // problem -> in how many of the columns
  for (const column of columns) for (const p of new Set(column.map(s => s.problem))) seen.set(p, (seen.get(p) || 0) + 1);
  const matched = columns.map(column => column.filter(matches));
  const shared = [...seen.keys()].filter(p => seen.get(p) > 1 && matched.some(c => c.some(s => s.problem === p)))
    .sort((a, b) => seen.get(b) - seen.get(a) || a - b);
  const rows = shared.slice(0, view.rows).map(p => element('div', {className: 'row'},
    problemLine(samples.problems[p], columns.flat().find(s => s.problem === p).held_out),
    element('div', {className: 'trio'}, ...columns.map((column, k) => {
      const mine = matched[k].filter(s => s.problem === p);
      return element('div', {className: 'cell'}, element('span', {className: 'narrow'}, stepText(view.steps[k])),
        ...(mine.length ? cards(mine, colors, false, view.each) : [element('p', {className: 'hint'}, column.some(s => s.problem === p) ? 'does not match' : 'not sampled here')]));
    }))));
  const rest = matched.map(column => column.filter(s => seen.get(s.problem) < 2));
  const numRest = shared.length > 3 ? Math.max(0, view.rows - 3) : Math.max(0, view.rows - shared.length) + (shared.length ? 0 : 1);
  if (numRest && rest.some(c => c.length)) {
    if (shared.length) rows.push(element('h4', {}, 'Problems of one of these steps alone'));
    rows.push(element('div', {className: 'trio'}, ...rest.map((column, k) => element('div', {className: 'cell'},
      element('span', {className: 'narrow'}, stepText(view.steps[k])), ...column.slice(0, numRest).map(s => sampleCard(s, colors, true))))));
  }
  if (!rows.length) rows.push(element('p', {className: 'hint'}, found.length ? 'None of these steps has a match; the mosaic shows where they are.' : 'No completion matches.'));
  $('sample-rows').replaceChildren(...rows);
  $('sample-more').hidden = shared.length <= view.rows && Math.max(...rest.map(c => c.length)) <= numRest;
}

function addSamples() {
  if (!samples || !samples.shown.length) return;
  $('samples').hidden = false;
  findTemplate();
  findRewardEnds();
  view.steps = samples.glance.filter(step => sampleSteps.includes(step));
  document.documentElement.style.setProperty('--columns', String(view.steps.length));
  const n = v => v.toLocaleString('en');
  $('sample-hint').append((samples.right_by ? 'Right: ' + samples.right_by + ' is at least 1. ' : 'Right: the reward is at least 1. ') +
    (samples.shown.length < samples.lines ? n(samples.shown.length) + ' of the ' + n(samples.lines) + ' completions of samples.jsonl, chosen evenly over its ' + n(samples.steps) + ' steps and whatever their reward. ' : '') +
    'Texts over ' + n(samples.cut_bytes) + ' bytes are cut in the middle.' + (samples.unreadable ? ' ' + n(samples.unreadable) + ' lines cannot be read.' : ''));
  if (template.head || template.tail)
    $('sample-hint').append(element('details', {className: 'inline'}, element('summary', {}, 'What stands around every problem'), element('pre', {}, template.head + '⟨problem⟩' + template.tail)));
  const choices = (id, key, names) => {
    $(id).replaceChildren(...names.map(name => {
      const button = element('button', {'aria-pressed': String(view[key] === name), className: view[key] === name ? 'on' : ''}, name);
      button.onclick = () => { view[key] = name; choices(id, key, names); drawSamples(); };
      return button;
    }));
  };
  choices('sample-show', 'show', ['all', 'right', 'wrong']);
  if (new Set(samples.shown.map(s => s.held_out)).size > 1) choices('sample-kind', 'kind', ['all', 'held out', 'training']);
  $('sample-search').oninput = event => { view.needle = event.target.value; drawSamples(); };
  $('sample-more').onclick = () => { view.rows += 5; drawSamples(); };
  drawSamples();
}
)js";

}  // namespace cohort::core
