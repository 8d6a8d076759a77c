// The page that `cohort report` fills in: @STYLE@, @CHARTS@, @SAMPLES@, @SCRIPT@ and @RUN@ (the run
// as JSON, without "<"). Its content policy forbids every request, so the page shows the same
// offline for ever.
#pragma once

namespace cohort::core {

inline constexpr char kReportPage[] = R"page(<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Cohort run</title>
<style>@STYLE@</style>
</head>
<body>
<header>
  <div class="title">
    <h1 id="name"></h1>
    <p id="subtitle"></p>
  </div>
  <div class="tools">
    <label title="Width of the moving average, as a share of the run">smoothing
      <input id="smoothing" type="range" min="0" max="100" value="35"></label>
    <button id="zoom-out" hidden>whole run</button>
    <button id="theme" title="Light or dark">&#9680;</button>
  </div>
</header>
<main>
  <noscript><p>This page draws its plots with its own inline JavaScript, which is turned off.</p></noscript>
  <section id="figures" class="figures"></section>
  <p id="empty" class="hint" hidden>No step has been logged yet.</p>
  <section id="lead" class="charts"></section>
  <section id="samples" hidden>
    <div class="legend-row">
      <div><h2>Completions over training</h2><div id="sample-hint" class="hint"></div></div>
      <div id="reward-scale" class="scale"></div>
    </div>
    <div id="mosaic"></div>
    <div class="controls">
      <span id="sample-show" class="choices"></span>
      <span id="sample-kind" class="choices"></span>
      <input id="sample-search" type="search" placeholder="search prompts and completions" aria-label="Search prompts and completions">
      <span id="sample-count"></span>
    </div>
    <div id="sample-heads" class="trio"></div>
    <div id="sample-rows"></div>
    <button id="sample-more">show more</button>
  </section>
  <section id="charts" class="charts"></section>
  <section id="experts" hidden>
    <h2>Expert load</h2>
    <div class="legend-row">
      <p class="hint">Tokens an expert received over the mean of its layer. Steps run to the right, one row an expert.</p>
      <div id="scale" class="scale"></div>
    </div>
    <div id="heatmaps" class="heatmaps"></div>
  </section>
  <details id="other" hidden><summary>Other metrics</summary><div id="other-charts" class="charts small"></div></details>
  <details id="events" open hidden><summary>Events</summary></details>
  <details id="summary" hidden><summary>Summary</summary></details>
  <details id="checkpoints" hidden><summary>Checkpoints</summary></details>
  <details id="card" hidden><summary>Data card</summary></details>
  <details id="config" hidden><summary>config.yaml</summary><pre></pre></details>
</main>
<footer id="footer"></footer>
<div id="tip" hidden></div>
<script type="application/json" id="run">@RUN@</script>
<script>@CHARTS@@SAMPLES@@SCRIPT@</script>
</body>
</html>
)page";

}  // namespace cohort::core
