import { api } from "./api.js";
import { formatNumber, formatPercent, formatSeconds, t } from "./text.js";
import { announce, bars, faultNotice, frameOf, h, icon, openCamera, svg } from "./parts.js";

// The webcam in motion: answers averaged over the last 32 frames, as a chart over time, and how steady the last hidden layer is.

const WINDOW = 32;
const KEPT = 240; // frames in the chart and in the comparison with shuffled frames
const LINES = 5;
const SIDE = 320;
const PAUSE_MS = 60;
const WIDTH = 720;
const HEIGHT = 180;

export async function motionAct(main, context) {
  const video = h("video", { class: "camera", "aria-label": t("camera.label"), "data-part": "camera-video" });
  const start = h("button", { type: "button", class: "loud", "data-part": "motion-start", onclick: () => (run.on ? pause() : begin()) });
  const fault = h("div", {});
  const averaged = h("div", { class: "stack", "data-part": "averaged" }, h("p", { class: "note" }, t("motion.hint")));
  const now = h("p", { class: "note", "data-part": "motion-now" });
  const chart = h("div", { class: "motion-chart", "data-part": "chart" });
  const legend = h("ul", { class: "motion-legend" });
  const steady = h("div", { class: "stack", "data-part": "steady" }, h("p", { class: "note" }, t("motion.steady_hint")));
  const run = { on: false, over: false, stop: null, frames: [], best: null, layer: "" };
  drawButton();
  drawChart([]);
  main.replaceChildren(
    h("h1", {}, t("motion.title")),
    h("p", { class: "lead" }, t("motion.lead", { n: WINDOW })),
    h("div", { class: "motion-top" }, h("div", { class: "stack" }, video, h("div", { class: "row" }, start), fault), h("div", { class: "stack" }, h("h2", {}, t("motion.averaged", { n: WINDOW })), averaged, now)),
    h("section", { class: "section motion-part", "aria-label": t("motion.chart") }, h("h2", {}, t("motion.chart")), h("div", { class: "card" }, chart, legend)),
    h("section", { class: "section motion-part", "aria-label": t("motion.steady") }, h("h2", {}, t("motion.steady")), h("p", { class: "note" }, t("motion.steady_lead")), steady),
  );
  const hide = () => {
    if (document.hidden) pause();
  };
  document.addEventListener("visibilitychange", hide);
  return () => {
    run.over = true;
    pause();
    document.removeEventListener("visibilitychange", hide);
  };

  function drawButton() {
    start.replaceChildren(icon("camera"), t(run.on ? "motion.pause" : run.frames.length ? "motion.go_on" : "motion.start"));
  }

  /** The camera is off while it pauses. */
  function pause() {
    run.on = false;
    run.stop?.();
    run.stop = null;
    drawButton();
  }

  async function begin() {
    run.on = true;
    drawButton();
    fault.replaceChildren();
    try {
      run.stop = await openCamera(video);
    } catch {
      fault.replaceChildren(h("p", { class: "notice", role: "alert" }, t("camera.refused")));
      pause();
      return;
    }
    if (!run.on || run.over) return pause(); // meanwhile somebody went on
    let follows = false; // frames before and after a pause are no neighbors
    while (run.on && !run.over) {
      try {
        const blob = await frameOf(video, SIDE);
        if (!blob || !run.on) continue;
        const began = performance.now();
        const answer = await api.send("/api/frames", blob);
        if (run.over) return;
        take(answer, (performance.now() - began) / 1000, follows);
        follows = true;
      } catch (error) {
        fault.replaceChildren(faultNotice(error));
        pause();
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }

  function take(answer, seconds, follows) {
    const shares = new Map(answer.answers.map((one) => [one.label, one.probability]));
    (answer.probabilities ?? []).forEach((probability, label) => shares.set(label, probability));
    for (const one of answer.answers) run.names = (run.names ?? new Map()).set(one.label, one.name);
    run.layer = answer.layer;
    const unit = direction(halves(answer.hidden));
    const before = run.frames.at(-1);
    run.frames.push({ shares, unit, likeness: follows && before?.unit && unit ? dot(before.unit, unit) : null });
    const mean = meanOf(run.frames.slice(-WINDOW));
    run.frames.at(-1).mean = mean;
    if (run.frames.length > KEPT) run.frames.shift();
    draw(answer, seconds, mean);
  }

  function nameOf(label) {
    return run.names.get(label) ?? context.model.classes[label] ?? String(label);
  }

  function draw(answer, seconds, mean) {
    const best = [...mean].sort(([, one], [, other]) => other - one).slice(0, LINES).map(([label, probability]) => ({ label, probability, name: nameOf(label) }));
    if (best.length) {
      averaged.replaceChildren(bars(best));
      now.textContent = t("motion.now", { name: answer.answers[0].name, percent: formatPercent(answer.answers[0].probability), time: formatSeconds(seconds) });
      if (best[0].label !== run.best) announce(t("teach.says", { name: best[0].name, percent: formatPercent(best[0].probability) }));
      run.best = best[0].label;
    }
    drawChart(strongest(run.frames));
    drawSteady();
  }

  /** Lines of the classes that were the most probable ones at their best. */
  function drawChart(labels) {
    const x = (i) => (i / (KEPT - 1)) * WIDTH;
    const y = (share) => HEIGHT - share * HEIGHT;
    const grid = [0, 0.5, 1].flatMap((share) => [svg("line", { class: "motion-grid", x1: 0, x2: WIDTH, y1: y(share), y2: y(share) }), svg("text", { class: "motion-tick", x: WIDTH + 6, y: y(share) + 4 }, `${100 * share} %`)]);
    const lines = labels.map((label, i) => {
      const first = KEPT - run.frames.length;
      const points = run.frames.map((frame, n) => `${x(first + n).toFixed(1)},${y(frame.mean.get(label) ?? 0).toFixed(1)}`).join(" ");
      return svg("polyline", { class: `motion-line line-${i}`, points });
    });
    const label = labels.length ? t("motion.chart_of", { names: labels.map(nameOf).join(", ") }) : t("motion.chart_empty");
    chart.replaceChildren(svg("svg", { viewBox: `-4 -8 ${WIDTH + 52} ${HEIGHT + 16}`, role: "img", "aria-label": label }, grid, lines));
    legend.replaceChildren(...labels.map((one, i) => h("li", {}, h("span", { class: `motion-key line-${i}`, "aria-hidden": "true" }), nameOf(one))));
  }

  function drawSteady() {
    const own = run.frames.map((frame) => frame.likeness).filter((likeness) => likeness !== null);
    const units = run.frames.map((frame) => frame.unit).filter(Boolean);
    if (own.length < 2) return;
    const neighbors = own.reduce((sum, one) => sum + one, 0) / own.length;
    const shuffled = meanOfPairs(units);
    const figure = (value) => formatNumber(value, 3);
    steady.replaceChildren(
      h("dl", { class: "facts" }, [
        h("div", { class: "fact" }, h("dt", {}, t("motion.neighbors")), h("dd", {}, figure(neighbors))),
        h("div", { class: "fact" }, h("dt", {}, t("motion.shuffled")), h("dd", {}, figure(shuffled))),
        h("div", { class: "fact" }, h("dt", {}, t("motion.frames")), h("dd", {}, formatNumber(units.length))),
      ]),
      h("p", {}, t(neighbors - shuffled > 0.005 ? "motion.steadier" : "motion.as_shuffled", { layer: run.layer })),
    );
  }
}

function strongest(frames) {
  const most = new Map();
  for (const { mean } of frames) for (const [label, share] of mean) most.set(label, Math.max(share, most.get(label) ?? 0));
  return [...most].sort(([, one], [, other]) => other - one).slice(0, LINES).map(([label]) => label);
}

/** The mean share of each class over these frames; a class that is not among the answers of a frame has none in it. */
export function meanOf(frames) {
  const sums = new Map();
  for (const { shares } of frames) for (const [label, share] of shares) sums.set(label, (sums.get(label) ?? 0) + share);
  return new Map([...sums].map(([label, sum]) => [label, sum / frames.length]));
}

/** The cosine similarity of two frames, averaged over all pairs: what neighbors are expected to have in a random order. */
export function meanOfPairs(units) {
  const sum = new Float64Array(units[0].length);
  for (const unit of units) unit.forEach((value, i) => (sum[i] += value));
  const n = units.length;
  return (dot(sum, sum) - n) / (n * (n - 1));
}

function dot(one, other) {
  let sum = 0;
  for (let i = 0; i < one.length; i += 1) sum += one[i] * other[i];
  return sum;
}

/** At length 1; null where all is 0, which has no direction. */
function direction(values) {
  const length = Math.sqrt(dot(values, values));
  return length > 0 ? values.map((value) => value / length) : null;
}

/** Numbers of 16 bits in base64, the lowest byte first. */
export function halves(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const words = new Uint16Array(bytes.buffer);
  return Float32Array.from(words, (word) => {
    const [sign, exponent, fraction] = [word >> 15 ? -1 : 1, (word >> 10) & 31, word & 1023];
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : fraction * 2 ** -24);
  });
}
