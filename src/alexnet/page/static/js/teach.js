import { api } from "./api.js";
import { formatNumber, formatPercent, formatSeconds, t } from "./text.js";
import { announce, bars, busyLine, dropZone, faultNotice, frameOf, h, icon, openCamera, toggle } from "./parts.js";
import { pictureFrame } from "./picture.js";

// The second act: piles of pictures, a last layer that tells them apart, and a try of it.

const FRAME_MS = 150; // between two frames while a button is held
const FRAME_SIDE = 320;
const THUMB = 64;
const SHOWN_THUMBS = 24;
const MOST_LETTERS = 80;
const SENDERS = 2;

export async function teachAct(main, context) {
  const { session } = context;
  const state = (session.teach ??= { piles: [newPile(t("teach.pile", { n: 1 })), newPile(t("teach.pile", { n: 2 }))], head: null });
  const camera = sharedCamera();
  const ending = [() => camera.close()];
  const list = h("div", { class: "piles", "data-part": "piles" });
  const status = h("div", { "aria-live": "polite", "data-part": "teach-status" });
  const learn = h("button", { type: "button", class: "loud", "data-part": "teach", onclick: () => teach() }, t("teach.learn"));
  const add = h("button", { type: "button", class: "quiet", "data-part": "add-pile", onclick: () => addPile() }, icon("plus"), t("teach.add_pile"));
  const tried = h("section", { class: "section", "aria-label": t("teach.try"), "data-part": "try" });
  const cards = new Map(); // pile -> {element, draw}
  main.replaceChildren(
    h("h1", {}, t("teach.title")),
    h("p", { class: "lead" }, t("teach.lead")),
    camera.element,
    list,
    h("div", { class: "row teach-do" }, add, learn),
    status,
    tried,
  );
  for (const pile of state.piles) list.append(cardOf(pile).element);
  let endTry = () => {};
  ending.push(() => endTry());
  drawAll();
  if (state.head) drawTry();
  return () => ending.forEach((end) => end());

  function cardOf(pile) {
    const card = pileCard(pile, { camera, onfiles: (files) => receive(pile, files), onchange: changed, onremove: () => removePile(pile) });
    ending.push(card.stop);
    cards.set(pile, card);
    return card;
  }

  function addPile() {
    const pile = newPile(t("teach.pile", { n: state.piles.length + 1 }));
    state.piles.push(pile);
    const card = cardOf(pile);
    list.append(card.element);
    changed();
    card.name.focus();
    card.name.select();
  }

  function removePile(pile) {
    state.piles = state.piles.filter((other) => other !== pile);
    cards.get(pile).element.remove();
    cards.get(pile).stop();
    cards.delete(pile);
    changed();
    add.focus();
  }

  /** What was learned is no longer of these piles. */
  function changed() {
    drawAll();
    if (state.head && !state.head.stale) {
      state.head.stale = true;
      status.replaceChildren(h("p", { class: "note" }, t("teach.stale")));
    }
  }

  function drawAll() {
    for (const card of cards.values()) card.draw(state.piles.length > 1);
    const waiting = state.piles.some((pile) => pile.pictures.some((picture) => picture.id === null));
    learn.disabled = waiting || state.piles.filter((pile) => pile.pictures.length > 0).length < 2;
  }

  /** Files become pictures of a pile: shown at once, their features computed one after the other. */
  async function receive(pile, files) {
    const added = files.map((blob) => ({ blob, id: null, thumb: h("canvas", { width: THUMB, height: THUMB }) }));
    pile.pictures.push(...added);
    if (files.length > 1) pile.unread = 0; // frames of the camera come one by one
    changed();
    const queue = [...added];
    const send = async () => {
      for (let picture = queue.shift(); picture; picture = queue.shift()) {
        if (!pile.pictures.includes(picture)) continue; // removed meanwhile
        try {
          picture.id = (await api.send("/api/teach/pictures", picture.blob)).picture;
          await drawThumb(picture);
        } catch (fault) {
          pile.pictures = pile.pictures.filter((other) => other !== picture);
          pile.unread += 1;
          pile.fault = fault;
        }
        drawAll();
      }
    };
    await Promise.all(Array.from({ length: SENDERS }, send));
    if (pile.unread > 0) announce(t("teach.unread", { n: pile.unread }));
  }

  function objection() {
    const names = state.piles.map((pile) => tidy(pile.name));
    const empty = state.piles.find((pile) => pile.pictures.length === 0);
    if (empty) return t("teach.empty", { name: empty.name });
    if (names.includes("")) return t("teach.no_name");
    const twice = names.find((name, i) => names.indexOf(name) !== i);
    return twice === undefined ? null : t("teach.twice", { name: twice });
  }

  async function teach() {
    const why = objection();
    if (why) {
      status.replaceChildren(h("p", { class: "notice", role: "alert" }, why));
      return;
    }
    learn.disabled = true;
    status.replaceChildren(busyLine(t("teach.learning")));
    try {
      const began = performance.now();
      const found = await learned();
      state.head = { ...found, seconds: (performance.now() - began) / 1000, stale: false };
      const images = t("teach.learned", { n: formatNumber(found.images), time: formatSeconds(state.head.seconds), layer: found.layer });
      const error = found.error === null ? t("teach.no_error") : t("teach.error", { percent: formatPercent(found.error) });
      status.replaceChildren(h("p", {}, images), h("p", { class: "note" }, error));
      drawTry();
    } catch (fault) {
      status.replaceChildren(faultNotice(fault));
    }
    drawAll();
  }

  /** The head of these piles. Pictures that the server has forgotten are sent again. */
  async function learned() {
    const ask = () => api.send("/api/teach", { piles: state.piles.map((pile) => ({ name: tidy(pile.name), pictures: pile.pictures.map((picture) => picture.id) })) });
    try {
      return await ask();
    } catch (fault) {
      if (fault.kind !== "forgotten") throw fault;
      for (const picture of state.piles.flatMap((pile) => pile.pictures)) picture.id = (await api.send("/api/teach/pictures", picture.blob)).picture;
      return ask();
    }
  }

  function drawTry() {
    endTry();
    endTry = trySection(tried, context, state, camera);
  }
}

function newPile(name) {
  return { name, pictures: [], unread: 0, fault: null };
}

/** A name as it is compared and kept: single spaces, one way to write each letter. */
function tidy(name) {
  return name.trim().replace(/\s+/g, " ").normalize("NFC");
}

/** Whether a fault is of the file that was sent, and not of the network or the server. */
function isOfFile(fault) {
  return ["not-an-image", "unsupported", "too-large"].includes(fault.kind);
}

async function drawThumb(picture) {
  const bitmap = await createImageBitmap(picture.blob).catch(() => null); // what the server reads and the browser does not stays grey
  if (!bitmap) return;
  const side = Math.min(bitmap.width, bitmap.height);
  picture.thumb.getContext("2d").drawImage(bitmap, (bitmap.width - side) / 2, (bitmap.height - side) / 2, side, side, 0, 0, THUMB, THUMB);
  bitmap.close();
}

/** One camera for all piles and for the try: opened when it is first wanted. */
function sharedCamera() {
  const video = h("video", { class: "camera", "aria-label": t("camera.label"), "data-part": "camera-video" });
  const off = h("button", { type: "button", class: "quiet", onclick: () => camera.close() }, icon("close"), t("teach.camera_off"));
  const fault = h("p", { class: "notice", role: "alert", hidden: true }, t("camera.refused"));
  const element = h("div", { class: "teach-camera", hidden: true }, video, h("div", { class: "stack" }, h("p", { class: "note" }, t("teach.camera_on")), h("div", {}, off)));
  const camera = {
    element: h("div", {}, element, fault),
    video,
    isOpen: false,
    onclose: new Set(),
    opening: null,
    /** Whether it is open now, or could be opened. */
    async open() {
      if (camera.isOpen) return true;
      camera.opening ??= openCamera(video).then(
        (stop) => {
          camera.stop = stop;
          camera.isOpen = true;
          return true;
        },
        () => false,
      );
      const done = await camera.opening;
      camera.opening = null;
      if (camera.left) camera.close();
      element.hidden = !camera.isOpen;
      fault.hidden = done;
      return camera.isOpen;
    },
    close() {
      camera.left = !camera.isOpen && camera.opening !== null; // stopped as soon as it has opened
      camera.stop?.();
      camera.stop = null;
      camera.isOpen = false;
      element.hidden = true;
      for (const tell of camera.onclose) tell();
    },
  };
  return camera;
}

function pileCard(pile, { camera, onfiles, onchange, onremove }) {
  const name = h("input", { type: "text", class: "pile-name", value: pile.name, maxlength: MOST_LETTERS, "aria-label": t("teach.name"), autocomplete: "off", "data-part": "pile-name" });
  name.addEventListener("input", () => {
    pile.name = name.value;
    onchange();
  });
  const remove = h("button", { type: "button", class: "quiet", "aria-label": t("teach.remove_pile"), title: t("teach.remove_pile"), onclick: onremove }, icon("close"));
  const count = h("p", { class: "note", "data-part": "pile-count" });
  const thumbs = h("div", { class: "thumbs" });
  const door = dropZone({ title: t("teach.drop"), multiple: true, folder: true, camera: false, onfiles });
  const record = h("button", { type: "button", class: "quiet record", "data-part": "record" }, icon("camera"), t("teach.record"));
  const held = holding(record, camera, (frame) => onfiles([frame]));
  const element = h("section", { class: "card stack pile", "aria-label": pile.name, "data-part": "pile" }, h("div", { class: "pile-head" }, name, remove), door.element, record, count, thumbs);
  return {
    element,
    name,
    draw(canRemove) {
      element.setAttribute("aria-label", pile.name);
      remove.disabled = !canRemove;
      const { pictures } = pile;
      const ready = pictures.filter((picture) => picture.id !== null).length;
      const said = [ready === pictures.length ? t(pictures.length === 1 ? "teach.one" : "teach.count", { n: formatNumber(ready) }) : t("teach.reading", { n: formatNumber(ready), of: formatNumber(pictures.length) })];
      if (pile.unread > 0) said.push(isOfFile(pile.fault) ? t("teach.unread", { n: formatNumber(pile.unread) }) : pile.fault.message);
      count.textContent = said.join(" ");
      const shown = pictures.slice(-SHOWN_THUMBS);
      thumbs.replaceChildren(
        ...shown.map((picture, i) => {
          const number = pictures.length - shown.length + i + 1;
          const takeOut = () => {
            pile.pictures = pile.pictures.filter((other) => other !== picture);
            onchange();
            (thumbs.children[Math.min(i, thumbs.children.length - 1)] ?? name).focus();
          };
          const label = t("teach.remove_picture", { n: number });
          return h("button", { type: "button", class: "thumb", "aria-label": label, title: label, onclick: takeOut }, picture.thumb);
        }),
        pictures.length > shown.length ? h("span", { class: "note" }, t("teach.more", { n: formatNumber(pictures.length - shown.length) })) : "",
      );
    },
    stop() {
      door.stop();
      held();
    },
  };
}

/** While a button is held, by pointer or by key, a frame of the camera every so often. Returns what ends it. */
function holding(button, camera, onframe) {
  let isHeld = false;
  const begin = async () => {
    if (isHeld) return;
    isHeld = true;
    button.classList.add("recording");
    if (await camera.open()) {
      while (isHeld && camera.isOpen) {
        const began = performance.now();
        const frame = await frameOf(camera.video, FRAME_SIDE);
        if (frame && isHeld) onframe(frame);
        await new Promise((resolve) => setTimeout(resolve, Math.max(0, FRAME_MS - (performance.now() - began))));
      }
    }
    stop();
  };
  const stop = () => {
    isHeld = false;
    button.classList.remove("recording");
  };
  button.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    button.setPointerCapture(event.pointerId);
    begin();
  });
  for (const name of ["pointerup", "pointercancel", "lostpointercapture", "blur"]) button.addEventListener(name, stop);
  button.addEventListener("contextmenu", (event) => event.preventDefault());
  button.addEventListener("keydown", (event) => {
    if (event.key !== " " && event.key !== "Enter") return;
    event.preventDefault();
    if (!event.repeat) begin();
  });
  button.addEventListener("keyup", (event) => {
    if (event.key === " " || event.key === "Enter") stop();
  });
  return stop;
}

/** Try what was learned, on the camera or on a picture, and keep it. Returns what ends it. */
function trySection(section, context, state, camera) {
  const { head } = state;
  const answers = h("div", { class: "teach-answers", "data-part": "tried" }, h("p", { class: "note" }, t("teach.try_hint")));
  const looked = pictureFrame({ size: context.model.input.size, label: t("teach.tried_alt") });
  looked.element.hidden = true;
  const fault = h("div", {});
  const kept = h("div", { "aria-live": "polite", "data-part": "kept" });
  let isLive = false;
  let isOver = false;
  let showsHeat = false;
  let last = null;

  const ask = async (blob, spoken) => {
    const found = await api.send(`/api/teach/${head.head}/answers`, blob);
    if (isOver) return;
    const best = found.answers[0];
    if (spoken || last?.best.label !== best.label) announce(t("teach.says", { name: best.name, percent: formatPercent(best.probability) }));
    last = { picture: found.picture, best };
    const shown = bars(isLive ? [...found.answers].sort((one, other) => one.label - other.label) : found.answers, { label: t("teach.try") });
    [...shown.children].forEach((row) => row.classList.toggle("best", row.querySelector(".bar-name").textContent === best.name));
    answers.replaceChildren(shown);
    await draw();
  };
  const draw = async () => {
    if (!last) return;
    await looked.show(last.picture);
    looked.element.hidden = false;
    await looked.heat(showsHeat ? `/api/teach/${head.head}/saliency.png?picture=${last.picture}&label=${last.best.label}` : null, 1);
  };
  const guarded = async (work) => {
    try {
      await work();
      fault.replaceChildren();
      return true;
    } catch (error) {
      if (!isOver) fault.replaceChildren(error.kind === "forgotten" ? h("p", { class: "notice", role: "alert" }, t("teach.forgotten")) : faultNotice(error));
      return false;
    }
  };
  const live = h("button", { type: "button", class: "quiet", "aria-pressed": "false", "data-part": "live", onclick: () => (isLive ? stopLive() : goLive()) }, icon("camera"), t("teach.live"));
  const stopLive = () => {
    isLive = false;
    live.setAttribute("aria-pressed", "false");
  };
  const goLive = async () => {
    if (!(await camera.open())) return;
    isLive = true;
    live.setAttribute("aria-pressed", "true");
    while (isLive && camera.isOpen && !isOver) {
      const began = performance.now();
      const frame = await frameOf(camera.video, FRAME_SIDE);
      if (frame && !(await guarded(() => ask(frame, false)))) break;
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, FRAME_MS - (performance.now() - began))));
    }
    stopLive();
  };
  const door = dropZone({ title: t("teach.try_drop"), camera: false, onfiles: ([file]) => (stopLive(), guarded(() => ask(file, true))) });
  const heat = toggle({
    text: t("teach.heat"),
    on: false,
    onchange: (on) => {
      showsHeat = on;
      note.hidden = !on;
      guarded(draw);
    },
  });
  const note = h("p", { class: "note", hidden: true }, t("teach.heat_note"));
  const keep = h("button", { type: "button", class: "quiet", "data-part": "keep" }, icon("save"), t("teach.keep"));
  keep.addEventListener("click", async () => {
    keep.disabled = true;
    kept.replaceChildren(busyLine(t("teach.keeping")));
    try {
      const { path } = await api.send(`/api/teach/${head.head}/keep`, {});
      kept.replaceChildren(h("p", {}, t("teach.kept")), h("p", {}, h("code", { class: "path" }, path)), h("p", { class: "note" }, t("teach.kept_hint")), h("p", {}, h("code", { class: "path" }, `alexnet predict ${/^[\w./-]+$/.test(path) ? path : `"${path}"`} photo.jpg`)));
    } catch (error) {
      kept.replaceChildren(error.kind === "forgotten" ? h("p", { class: "notice", role: "alert" }, t("teach.forgotten")) : h("p", { class: "notice", role: "alert", "data-part": "fault" }, error.message));
    }
    keep.disabled = false;
  });
  camera.onclose.add(stopLive);
  section.replaceChildren(
    h("div", { class: "section-head" }, h("div", {}, h("h2", {}, t("teach.try")), h("p", {}, t("teach.try_lead")))),
    h("div", { class: "teach-try" }, h("div", { class: "stack" }, door.element, h("div", { class: "row" }, live, heat), note, fault), looked.element, h("div", { class: "stack" }, answers)),
    h("div", { class: "stack teach-keep" }, h("div", { class: "row" }, keep, h("span", { class: "note" }, t("teach.keep_hint"))), kept),
  );
  return () => {
    isOver = true;
    isLive = false;
    door.stop();
    camera.onclose.delete(stopLive);
  };
}
