import { faultText, formatPercent, t } from "./text.js";

// What all acts are made of: elements, bars, the door that pictures come in by, the camera.

const SVG = "http://www.w3.org/2000/svg";

/** An element: `h("button", {type: "button", class: "quiet", onclick: go}, "Go")`. Attributes that are null, undefined or false are left out. */
export function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for a part of an SVG. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) element.style.setProperty(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function icon(name) {
  return svg("svg", { class: "icon", "aria-hidden": "true", focusable: "false" }, svg("use", { href: `#icon-${name}` }));
}

/** Say something to those who listen to the page. */
export function announce(text) {
  const announcer = document.getElementById("announcer");
  announcer.textContent = "";
  setTimeout(() => {
    announcer.textContent = text;
  }, 50);
}

/** A line for what went wrong, said aloud as well. */
export function faultNotice(fault) {
  return h("p", { class: "notice", role: "alert", "data-part": "fault" }, faultText(fault));
}

export function busyLine(text) {
  return h("p", { class: "busy", "data-part": "busy" }, h("span", { class: "busy-dot", "aria-hidden": "true" }), text);
}

/** Until an element is about to come into sight. */
export function whenSeen(element, signal) {
  return new Promise((resolve) => {
    const observer = new IntersectionObserver(
      (entries) => {
        if (!entries.some(({ isIntersecting }) => isIntersecting)) return;
        observer.disconnect();
        resolve();
      },
      { rootMargin: "300px" },
    );
    observer.observe(element);
    signal.addEventListener("abort", () => observer.disconnect());
  });
}

/** Answers as bars, the most probable first. `before` (by label) draws a mark at the probability that was; `onchoose(answer)` makes each a button. */
export function bars(answers, { before = null, chosen = null, onchoose = null, label = t("bars.label") } = {}) {
  const rows = answers.map((answer) => {
    const percent = formatPercent(answer.probability);
    const was = before?.get(answer.label) ?? null;
    const content = [
      h("span", { class: "bar-name" }, answer.name),
      h(
        "span",
        { class: "bar-track", "aria-hidden": "true" },
        h("span", { class: "bar-fill", "--share": answer.probability }),
        was === null ? null : h("span", { class: "bar-before", "--share": was }),
      ),
      h("span", { class: "bar-figure" }, percent),
      was === null ? null : h("span", { class: "bar-was" }, t("bars.was", { percent: formatPercent(was) })),
    ];
    if (!onchoose) return h("li", { class: "bar" }, content);
    const isChosen = chosen === answer.label;
    return h("li", {}, h("button", { type: "button", class: "bar", "aria-pressed": String(isChosen), onclick: () => onchoose(answer) }, content));
  });
  return h("ol", { class: "bars", "aria-label": label, "data-part": "answers" }, rows);
}

/** All files of a drop, folders walked through. */
export async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  const files = [];
  const walk = async (entry) => {
    if (entry.isFile) {
      files.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // 100 at a time
      if (some.length === 0) return;
      for (const child of some) await walk(child);
    }
  };
  for (const entry of entries) await walk(entry);
  return files;
}

/**
 * The door that pictures come in by: dropped, pasted, chosen, photographed. `onfiles(blobs)` is called with what came.
 * `whole`: a drop or paste anywhere on the page comes here. `folder`: a folder can be chosen too. Returns {element, stop}.
 */
export function dropZone({ onfiles, title, hint = null, multiple = false, whole = false, folder = false, camera = true }) {
  const give = (files) => {
    const pictures = [...files].filter((file) => !file.type || file.type.startsWith("image/"));
    if (pictures.length > 0) onfiles(multiple ? pictures : pictures.slice(0, 1));
    else if (files.length > 0) announce(t("fault.not-an-image"));
  };
  const chooser = (isFolder) => {
    const input = h("input", { type: "file", accept: "image/*", multiple: multiple || isFolder, webkitdirectory: isFolder, hidden: true, "data-part": isFolder ? "folder-input" : "file-input" });
    input.addEventListener("change", () => {
      give(input.files);
      input.value = "";
    });
    return input;
  };
  const fileInput = chooser(false);
  const folderInput = folder ? chooser(true) : null;
  const button = (name, text, onclick) => h("button", { type: "button", class: "quiet", onclick }, icon(name), text);
  const element = h(
    "div",
    { class: "drop", role: "group", "aria-label": title, "data-part": "drop" },
    h("p", { class: "drop-title" }, title),
    hint ? h("p", { class: "drop-hint" }, hint) : null,
    h(
      "div",
      { class: "row" },
      button("image", t(multiple ? "drop.choose_many" : "drop.choose"), () => fileInput.click()),
      folder ? button("folder", t("drop.folder"), () => folderInput.click()) : null,
      camera
        ? button("camera", t("drop.photograph"), async () => {
            const photo = await takePhoto();
            if (photo) give([photo]);
          })
        : null,
    ),
    fileInput,
    folderInput,
  );
  const place = whole ? window : element;
  let depth = 0;
  const events = {
    dragenter: (event) => {
      event.preventDefault();
      depth += 1;
      element.classList.add("drop-over");
    },
    dragover: (event) => event.preventDefault(),
    dragleave: () => {
      depth -= 1;
      if (depth <= 0) element.classList.remove("drop-over");
    },
    drop: async (event) => {
      event.preventDefault();
      event.stopPropagation();
      depth = 0;
      element.classList.remove("drop-over");
      give(await filesOf(event.dataTransfer));
    },
  };
  const pasted = (event) => {
    if (event.clipboardData?.files.length) give(event.clipboardData.files);
  };
  for (const [name, listen] of Object.entries(events)) place.addEventListener(name, listen);
  if (whole) window.addEventListener("paste", pasted);
  return {
    element,
    stop() {
      for (const [name, listen] of Object.entries(events)) place.removeEventListener(name, listen);
      window.removeEventListener("paste", pasted);
    },
  };
}

/** Show the camera in a video element. Returns what stops it. */
export async function openCamera(video) {
  const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 640 } }, audio: false });
  video.srcObject = stream;
  video.muted = true;
  video.playsInline = true;
  await video.play();
  return () => {
    for (const track of stream.getTracks()) track.stop();
    video.srcObject = null;
  };
}

/** The present frame of a video as a JPEG file, its shorter side at most `side` pixels. */
export async function frameOf(video, side = 480) {
  const scale = Math.min(1, side / Math.min(video.videoWidth, video.videoHeight));
  const canvas = h("canvas", { width: Math.round(video.videoWidth * scale), height: Math.round(video.videoHeight * scale) });
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
}

/** A photograph taken with the camera, or null. */
export async function takePhoto() {
  const video = h("video", { class: "camera", "aria-label": t("camera.label") });
  const shoot = h("button", { type: "button", class: "loud", disabled: true }, icon("camera"), t("camera.take"));
  const cancel = h("button", { type: "button", class: "quiet" }, t("camera.cancel"));
  const status = h("p", { role: "status" });
  const dialog = h("dialog", { class: "dialog", "aria-label": t("camera.label"), "data-part": "camera" }, video, status, h("div", { class: "row" }, shoot, cancel));
  document.body.append(dialog);
  dialog.showModal();
  let stop = () => {};
  let closed = false;
  const photo = await new Promise((resolve) => {
    shoot.addEventListener("click", async () => resolve(await frameOf(video, 960)));
    cancel.addEventListener("click", () => resolve(null));
    dialog.addEventListener("close", () => resolve(null));
    openCamera(video).then(
      (stopCamera) => {
        stop = stopCamera;
        if (closed) stop();
        shoot.disabled = false;
        shoot.focus();
      },
      () => {
        status.textContent = t("camera.refused");
      },
    );
  });
  closed = true;
  stop();
  dialog.remove();
  return photo;
}

/** One of several: a row of radio buttons that looks like one control. `choices`: [value, text] pairs. */
export function segmented({ label, choices, value, onchange }) {
  const name = `segmented-${Math.random().toString(36).slice(2)}`;
  return h(
    "fieldset",
    { class: "segmented" },
    h("legend", { class: "unseen" }, label),
    choices.map(([choice, text]) =>
      h("label", {}, h("input", { type: "radio", name, value: choice, checked: choice === value, onchange: () => onchange(choice) }), h("span", {}, text)),
    ),
  );
}

/** A switch with its text. */
export function toggle({ text, on, onchange }) {
  const input = h("input", { type: "checkbox", role: "switch", onchange: () => onchange(input.checked) });
  input.checked = on;
  return h("label", { class: "toggle" }, input, h("span", {}, text));
}
