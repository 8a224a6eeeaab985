import { api } from "./api.js";
import { t } from "./text.js";
import { h } from "./parts.js";

// Pictures to begin with: some of the model's own data, or drawings made here.

const DRAWINGS = [
  ["circle", "#d33a2c", "#f1e7d0"],
  ["square", "#2f5fc4", "#e8e2d8"],
  ["triangle", "#2e9b57", "#f3d9d2"],
  ["ring", "#e0a021", "#35506b"],
  ["cross", "#7a3fae", "#dfeae4"],
  ["stripes", "#1d1d1d", "#f2f2f2"],
];

const SHAPES = {
  circle: (pen) => pen.arc(128, 124, 78, 0, 2 * Math.PI),
  square: (pen) => pen.rect(58, 62, 136, 136),
  triangle: (pen) => {
    pen.moveTo(128, 42);
    pen.lineTo(214, 200);
    pen.lineTo(42, 200);
    pen.closePath();
  },
  ring: (pen) => {
    pen.arc(128, 128, 86, 0, 2 * Math.PI);
    pen.arc(128, 128, 46, 0, 2 * Math.PI, true);
  },
  cross: (pen) => {
    pen.rect(104, 40, 48, 176);
    pen.rect(40, 104, 176, 48);
  },
  stripes: (pen) => {
    for (let x = 8; x < 256; x += 40) pen.rect(x, 0, 20, 256);
  },
};

function drawing([shape, color, ground]) {
  const canvas = h("canvas", { width: 256, height: 256 });
  const pen = canvas.getContext("2d");
  pen.fillStyle = ground;
  pen.fillRect(0, 0, 256, 256);
  pen.fillStyle = color;
  pen.beginPath();
  SHAPES[shape](pen);
  pen.fill();
  return canvas;
}

function asFile(canvas) {
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

/** Send a picture, and make it the present one. */
export async function sendPicture(context, blob) {
  const answer = await api.send("/api/pictures", blob);
  context.session.picture = { id: answer.picture, seconds: answer.seconds, answers: answer.answers };
  return context.session.picture;
}

/** Take a picture that the server has already. */
export async function takePicture(context, id) {
  const answer = await api.json(`/api/pictures/${id}`);
  context.session.picture = { id, seconds: answer.seconds, answers: answer.answers };
  return context.session.picture;
}

async function samplesOf(context) {
  context.session.samples ??= (await api.json("/api/samples")).samples;
  return context.session.samples;
}

/** Something to look at from the start: the present picture, else a sample, else a drawing. */
export async function firstPicture(context) {
  if (context.session.picture) return;
  const samples = await samplesOf(context);
  if (samples.length > 0) await takePicture(context, samples[0].picture);
  else if (api.live) await sendPicture(context, await asFile(drawing(DRAWINGS[0])));
}

/** A row of small pictures; one becomes the present picture when it is chosen, and `onpicture` is called. */
export async function sampleRow(context, { title, onpicture, onfault = () => {} }) {
  const { session } = context;
  const samples = await samplesOf(context);
  const choose = async (button, take) => {
    button.setAttribute("aria-busy", "true");
    try {
      await take();
      onpicture();
    } catch (fault) {
      onfault(fault);
    }
    button.removeAttribute("aria-busy");
  };
  const button = (label, content, take) => {
    const element = h("button", { type: "button", class: "sample", "aria-label": label, title: label, onclick: () => choose(element, take) }, content);
    return element;
  };
  const buttons = samples.length
    ? samples.map(({ picture, label }, i) =>
        button(label ?? t("samples.number", { n: i + 1 }), h("img", { src: api.image(`/api/pictures/${picture}/input.png`), alt: "" }), () => takePicture(context, picture)),
      )
    : DRAWINGS.map((about) => {
        const canvas = drawing(about);
        return button(t(`samples.${about[0]}`), canvas, async () => sendPicture(context, await asFile(canvas)));
      });
  if (!api.live && samples.length === 0) return h("div", {});
  session.samples = samples;
  return h("div", { class: "samples", role: "group", "aria-label": title, "data-part": "samples" }, h("p", { class: "note" }, title), h("div", { class: "sample-row" }, buttons));
}
