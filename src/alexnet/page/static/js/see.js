import { api } from "./api.js";
import { formatPercent, formatSeconds, t } from "./text.js";
import { bars, busyLine, dropZone, faultNotice, h, icon, segmented, toggle } from "./parts.js";
import { pictureFrame } from "./picture.js";
import { networkMap } from "./map.js";
import { channelGrid, stageFacts, stageHeading, towerText } from "./stage.js";
import { channelPanel, unitSteps } from "./unit.js";
import { firstPicture, sampleRow, sendPicture } from "./samples.js";

// The first act: a picture goes in; what the network answers, and every stage on the way there.

export async function seeAct(main, context) {
  const { model, session } = context;
  const ending = [];
  const top = h("div", { class: "see-top" });
  const views = h("section", { class: "section", "aria-label": t("views.title"), hidden: !model.can_answer, "data-part": "views" });
  const walk = walkSection(context, ending);
  const away = h("section", { class: "section", hidden: !canSwitch(context), "data-part": "switches" });
  main.replaceChildren(h("h1", {}, t("see.title")), h("p", { class: "lead" }, t(leadOf(context))), top, views, walk.element, away);

  const canExplain = api.live && model.can_answer && model.methods.length > 0;
  const looked = pictureSide(context);
  const answers = h("div", { class: "stack", "aria-live": "polite", "data-part": "answer-box" });
  const doors = h("div", { class: "stack" });
  top.replaceChildren(looked.element, ...(model.can_answer ? [answers] : []), doors);
  const fault = h("div", {});

  const receive = async (take) => {
    fault.replaceChildren(busyLine(t("busy.picture")));
    try {
      await take();
      fault.replaceChildren();
      shownAnew();
    } catch (error) {
      fault.replaceChildren(faultNotice(error));
    }
  };

  if (api.live) {
    const door = dropZone({ title: t("see.drop"), hint: t("see.drop_hint"), whole: true, onfiles: ([file]) => receive(() => sendPicture(context, file)) });
    ending.push(door.stop);
    doors.append(door.element);
  } else {
    doors.append(h("p", { class: "note" }, t("see.exported")));
  }
  doors.append(fault);
  sampleRow(context, { title: t(api.live ? "samples.title" : "samples.title_exported"), onpicture: shownAnew, onfault: (error) => fault.replaceChildren(faultNotice(error)) }).then(
    (row) => doors.append(row),
    (error) => fault.replaceChildren(faultNotice(error)),
  );

  /** Everything that depends on the picture. */
  function shownAnew() {
    fault.replaceChildren();
    looked.show();
    drawAnswers();
    walk.show();
    if (model.can_answer) drawViews(views, context);
    if (canSwitch(context)) drawSwitches(away, context, walk);
  }

  function drawAnswers() {
    const { picture } = session;
    if (!model.can_answer || !picture.answers) return;
    const chosen = session.heatLabel ?? picture.answers[0].label;
    answers.replaceChildren(
      h("h2", {}, t("see.answers")),
      bars(picture.answers, {
        chosen: session.heat === "none" ? null : chosen,
        onchoose: canExplain
          ? (answer) => {
              session.heatLabel = answer.label;
              if (session.heat === "none") session.heat = "saliency";
              looked.heat();
              drawAnswers();
              answers.querySelector('[aria-pressed="true"]')?.focus();
            }
          : null,
      }),
      h("p", { class: "note" }, t("see.time", { time: formatSeconds(picture.seconds) }), canExplain ? ` ${t("see.why_hint")}` : ""),
    );
  }
  looked.onheat = drawAnswers;
  walk.onoff = () => {
    if (canSwitch(context)) drawSwitches(away, context, walk);
  };

  if (session.picture) shownAnew();
  else await receive(() => firstPicture(context));
  if (!session.picture) walk.show();
  return () => {
    for (const end of ending) end();
  };
}

function leadOf({ model }) {
  if (!model.can_answer) return "see.lead_no_answers";
  return api.live ? "see.lead" : "see.lead_exported";
}

function canSwitch({ model }) {
  return api.live && model.can_answer;
}

// The picture, and what the answer rests on --------------------------------------------------------------------------------------

function pictureSide({ model, session }) {
  session.heat ??= "none";
  session.method ??= model.methods[0];
  session.opacity ??= 0.75;
  const frame = pictureFrame({ size: model.input.size, label: t("see.picture_alt") });
  const status = h("div", { role: "status" });
  const slider = h("input", { type: "range", min: 0, max: 100, value: Math.round(session.opacity * 100) });
  const sliderRow = h("label", { class: "slider" }, t("heat.opacity"), slider);
  const note = h("p", { class: "note" });
  const side = { onheat: () => {}, show, heat, element: null };
  let turn = 0;

  function path() {
    const label = session.heatLabel ?? session.picture.answers?.[0].label;
    const base = `/api/pictures/${session.picture.id}`;
    if (session.heat === "none" || label === undefined) return null;
    return session.heat === "occlusion" ? `${base}/occlusion.png?label=${label}` : `${base}/saliency.png?label=${label}&method=${session.method}`;
  }

  async function heat() {
    const mine = (turn += 1);
    const wanted = session.picture ? path() : null;
    if (wanted !== null && !api.has(wanted)) {
      status.replaceChildren(faultNotice({ kind: "not-exported" }));
      return;
    }
    control.querySelectorAll("input").forEach((input) => {
      input.checked = input.value === session.heat;
    });
    sliderRow.hidden = wanted === null;
    methodRow.hidden = session.heat !== "saliency" || model.methods.length < 2;
    note.hidden = wanted === null;
    const label = session.heatLabel ?? session.picture?.answers?.[0].label;
    note.textContent = wanted === null ? "" : t(`heat.${session.heat === "occlusion" ? "occlusion" : session.method}_note`, { name: model.classes[label] });
    status.replaceChildren(wanted === null ? "" : busyLine(t("busy.heat")));
    try {
      await frame.heat(wanted, session.opacity);
      if (mine === turn) status.replaceChildren();
    } catch (fault) {
      if (mine === turn) status.replaceChildren(faultNotice(fault));
    }
  }

  async function show() {
    if (session.picture.id !== session.heatOf) {
      session.heatOf = session.picture.id;
      session.heatLabel = null;
    }
    try {
      await frame.show(session.picture.id);
    } catch (fault) {
      status.replaceChildren(faultNotice(fault));
    }
    await heat();
  }

  slider.addEventListener("input", () => {
    session.opacity = slider.value / 100;
    if (session.picture) frame.heat(path(), session.opacity);
  });
  const method = h("select", {}, model.methods.map((name) => h("option", { value: name, selected: name === session.method }, t(`heat.${name}`))));
  method.addEventListener("change", () => {
    session.method = method.value;
    heat();
  });
  const methodRow = h("label", { class: "slider" }, t("heat.method"), method);
  const control = segmented({
    label: t("heat.label"),
    choices: ["none", "saliency", "occlusion"].map((value) => [value, t(`heat.${value}`)]),
    value: session.heat,
    onchange: (value) => {
      session.heat = value;
      heat();
      side.onheat();
    },
  });
  const controls = model.can_answer && model.methods.length > 0 ? [h("div", {}, control), methodRow, sliderRow, status, note] : [status];
  side.element = h("div", { class: "stack see-picture" }, frame.element, ...controls);
  for (const hidden of [methodRow, sliderRow, note]) hidden.hidden = true;
  return side;
}

// The ten views ---------------------------------------------------------------------------------------------------------------------

/** Where a view lies in the square: a corner, or the center. */
function viewPlace([top, left, bottom, right], square) {
  const across = left === 0 ? "left" : right === square ? "right" : null;
  const down = top === 0 ? "top" : bottom === square ? "bottom" : null;
  return across && down ? `${down}_${across}` : "center";
}

async function drawViews(section, { model, session }) {
  const { id } = session.picture;
  const heading = h("div", { class: "section-head" }, h("div", {}, h("h2", {}, t("views.title")), h("p", {}, t(model.input.resize > model.input.size ? "views.lead" : "views.lead_whole", { size: model.input.size }))));
  section.replaceChildren(heading, busyLine(t("busy.views")));
  try {
    const [found, square] = await Promise.all([api.json(`/api/pictures/${id}/views`), api.load(`/api/pictures/${id}/square.png`)]);
    if (session.picture.id !== id) return;
    const scale = square.naturalWidth / found.square;
    const isWhole = model.input.resize === model.input.size; // then the five places are one
    const shown = isWhole ? [false, true].map((flag) => found.views.find(({ mirrored }) => mirrored === flag)) : found.views;
    const items = shown.map(({ box: [topEdge, left, bottom, right], mirrored, answers }) => {
      const canvas = h("canvas", { width: 160, height: 160, "aria-hidden": "true" });
      const pen = canvas.getContext("2d");
      if (mirrored) pen.setTransform(-1, 0, 0, 1, 160, 0);
      pen.drawImage(square, left * scale, topEdge * scale, (right - left) * scale, (bottom - topEdge) * scale, 0, 0, 160, 160);
      const place = t(`views.${isWhole ? "whole" : viewPlace([topEdge, left, bottom, right], found.square)}`);
      return h(
        "li",
        { class: "view" },
        canvas,
        h("span", { class: "note" }, mirrored ? t("views.mirrored", { place }) : place),
        h("span", { class: "view-name" }, answers[0].name),
        h("span", { class: "bar-track", "aria-hidden": "true" }, h("span", { class: "bar-fill", "--share": answers[0].probability })),
        h("span", { class: "bar-figure" }, formatPercent(answers[0].probability)),
      );
    });
    section.replaceChildren(
      heading,
      h(
        "div",
        { class: "views" },
        h("ol", { class: "view-list" }, items),
        h("div", { class: "stack" }, h("h3", {}, t("views.together")), bars(found.answers), h("p", { class: "note" }, t("see.time", { time: formatSeconds(found.seconds) }))),
      ),
    );
  } catch (fault) {
    section.replaceChildren(heading, faultNotice(fault));
  }
}

// The walk through the network -------------------------------------------------------------------------------------------------------

function walkSection(context, ending) {
  const { model, session, go } = context;
  const stages = model.stages;
  if (!stages.some(({ name }) => name === session.stage)) session.stage = (stages.find(({ has_maps: has }) => has) ?? stages[0]).name;
  const panel = h("div", { class: "stage-panel", role: "tabpanel", id: "stage-panel", tabindex: "-1" });
  const map = networkMap(model, { chosen: session.stage, panel: "stage-panel", onchoose: choose });
  const section = h(
    "section",
    { class: "section", "data-part": "walk" },
    h("div", { class: "section-head" }, h("div", {}, h("h2", {}, t("map.title")), h("p", {}, t(model.towers === 2 ? "map.lead_towers" : "map.lead")))),
    h("figure", { class: "card map-card" }, map.element, h("figcaption", { class: "note map-caption" }, t("map.caption"), model.towers === 2 ? [" ", ...[0, 1].map((tower) => h("span", { class: `badge tower-${tower}` }, towerText(tower)))] : null)),
    panel,
  );
  const walk = { element: section, show, refresh, onoff: () => {} };
  let leave = () => {};
  let grid = null;

  function choose(stage) {
    session.stage = stage.name;
    draw();
  }

  function draw() {
    leave();
    const stage = stages.find(({ name }) => name === session.stage);
    const leaving = new AbortController();
    let endChannel = () => {};
    leave = () => {
      leaving.abort();
      endChannel();
    };
    grid = null;
    panel.setAttribute("aria-labelledby", `stage-${stage.name}`);
    const channels = h("div", { class: "stack" });
    const detail = h("div", { class: "stack channel-detail", "data-part": "channel" });
    const body = h("div", { class: "stage-body" }, channels);
    panel.replaceChildren(h("div", { class: "stage-about" }, h("div", {}, stageHeading(stage)), h("div", { class: "stack" }, stageFacts(model, stage, context.language))), body);
    if (stage.kind === "input") {
      body.hidden = true;
      return;
    }
    if (stage.trained === false) {
      channels.append(h("p", { class: "notice" }, t("stage.untrained")));
      return;
    }
    const hasChannels = stage.has_maps || stage.has_units;
    if (!hasChannels || !session.picture || !api.has(`/api/pictures/${session.picture.id}/maps/${stage.name}`)) {
      body.hidden = true;
      return;
    }
    channels.append(busyLine(t("busy.maps")));
    const open = (channel, isUser) => {
      endChannel();
      session.channels[stage.name] = channel;
      const address = `/unit/${stage.name}/${channel}`;
      const inner = h("div", { class: "unit-parts" });
      const hasPage = stage.has_units;
      detail.replaceChildren(
        h(
          "div",
          { class: "section-head" },
          h("h3", { class: "channel-name", tabindex: "-1" }, t(stage.shape.length === 3 ? "unit.title" : "unit.title_dense", { layer: stage.name, channel })),
          unitSteps({
            stage,
            channel,
            href: context.href,
            onstep: (to, event) => {
              event?.preventDefault();
              grid?.choose(to);
              open(to, false);
            },
          }),
        ),
        hasPage ? h("a", { class: "permanent", href: context.href(address), "data-go": address }, icon("link"), t(stage.shape.length === 3 ? "unit.permanent" : "unit.permanent_dense")) : "",
        inner,
      );
      endChannel = channelPanel(inner, {
        context,
        layer: stage.name,
        channel,
        level: 4,
        onoff: () => {
          grid?.repaint();
          walk.onoff();
        },
      });
      if (isUser && matchMedia("(max-width: 60rem)").matches) detail.scrollIntoView({ block: "start" });
    };
    channelGrid({ context, stage, picture: session.picture.id, chosen: session.channels[stage.name] ?? null, onchoose: (channel) => open(channel, true), signal: leaving.signal }).then(
      (made) => {
        if (leaving.signal.aborted) return;
        grid = made;
        channels.replaceChildren(made.element);
        const first = session.channels[stage.name] ?? made.strongest;
        body.append(detail);
        made.choose(first);
        open(first, false);
      },
      (fault) => {
        if (!leaving.signal.aborted) channels.replaceChildren(faultNotice(fault));
      },
    );
  }

  function show() {
    if (session.picture) map.picture(api.image(`/api/pictures/${session.picture.id}/input.png`));
    draw();
  }

  function refresh() {
    grid?.repaint();
  }

  const repaint = new MutationObserver(refresh);
  repaint.observe(document.documentElement, { attributeFilter: ["data-theme"] });
  ending.push(() => {
    repaint.disconnect();
    map.stop();
    leave();
  });
  return walk;
}

// Taking parts away ------------------------------------------------------------------------------------------------------------------

async function drawSwitches(section, context, walk) {
  const { model, session } = context;
  const { off, without } = session;
  const { id } = session.picture;
  const again = () => {
    walk.refresh();
    answer();
    drawChannels();
  };
  const flip = (part, text) =>
    toggle({
      text,
      on: without.has(part),
      onchange: (isOff) => {
        if (isOff) without.add(part);
        else without.delete(part);
        answer();
      },
    });
  const toggles = [
    model.switches.normalization ? flip("normalization", t("switch.normalization")) : null,
    ...(model.switches.towers === 2 ? [0, 1].map((tower) => flip(`tower${tower}`, t("switch.tower", { tower: towerText(tower) }))) : []),
  ].filter(Boolean);
  const chips = h("div", { class: "row" });
  const result = h("div", { class: "compare", role: "status", "aria-live": "polite" });

  function drawChannels() {
    chips.replaceChildren(
      ...[...off].map((name) =>
        h(
          "button",
          {
            type: "button",
            class: "chip",
            "aria-label": t("switch.channel_on", { name }),
            onclick: () => {
              off.delete(name);
              again();
            },
          },
          name,
          icon("close"),
        ),
      ),
      ...(off.size === 0 ? [h("p", { class: "note" }, t("switch.no_channels"))] : []),
    );
  }

  let turn = 0;
  async function answer() {
    const mine = (turn += 1);
    if (off.size === 0 && without.size === 0) {
      const now = session.picture.answers;
      result.replaceChildren(...(now ? [h("div", { class: "stack" }, h("h3", {}, t("switch.before")), bars(now, { label: t("switch.before") }))] : []), h("p", { class: "note" }, t("switch.nothing_off")));
      return;
    }
    const query = new URLSearchParams();
    if (off.size) query.set("off", [...off].join(","));
    if (without.size) query.set("without", [...without].join(","));
    try {
      const said = await api.json(`/api/pictures/${id}/answers?${query}`);
      if (mine !== turn || session.picture.id !== id) return;
      const was = new Map(said.after.map((one) => [one.label, one.probability_before ?? null]));
      result.replaceChildren(
        h("div", { class: "stack" }, h("h3", {}, t("switch.before")), bars(said.before, { label: t("switch.before") })),
        h("div", { class: "stack" }, h("h3", {}, t("switch.after")), bars(said.after, { before: was, label: t("switch.after") })),
      );
    } catch (fault) {
      if (mine === turn) result.replaceChildren(faultNotice(fault));
    }
  }

  section.replaceChildren(
    h("div", { class: "section-head" }, h("div", {}, h("h2", {}, t("switch.title")), h("p", {}, t("switch.lead")))),
    h("div", { class: "card switches" }, h("div", { class: "stack" }, toggles, h("h3", {}, t("switch.channels")), chips), result),
  );
  drawChannels();
  await answer();
}
