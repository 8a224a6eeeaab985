import { api } from "./api.js";
import { formatFigure, formatNumber, formatPercent, formatSeconds, t } from "./text.js";
import { announce, busyLine, dropZone, faultNotice, h } from "./parts.js";
import { sampleRow } from "./samples.js";

// The third act: the pictures of an index that are most like one, by features, by pixels and by codes.

const AGAIN_MS = 300; // until it is asked again for the thumbnails that are still being made

export async function searchAct(main, context) {
  const { model, session } = context;
  if (!model.index) {
    main.replaceChildren(h("h1", {}, t("search.title")), h("p", { class: "lead" }, t("search.no_index")), h("p", {}, h("code", { class: "path" }, "alexnet index MODEL photos/ --out photos.index")), h("p", {}, h("code", { class: "path" }, "alexnet serve MODEL --index photos.index")));
    return () => {};
  }
  const fault = h("div", {});
  const asked = h("div", { class: "search-asked" });
  const found = h("div", { class: "stack search-found", "data-part": "found" });
  const shown = { turn: 0, url: null };
  const door = dropZone({ title: t("search.drop"), hint: t("see.drop_hint"), whole: true, onfiles: ([file]) => search(file) });
  const doors = h("div", { class: "stack" }, door.element, fault);
  main.replaceChildren(
    h("h1", {}, t("search.title")),
    h("p", { class: "lead" }, t("search.lead", { n: formatNumber(model.index.images) })),
    h("div", { class: "search-top" }, doors, asked),
    found,
  );
  sampleRow(context, { title: t("samples.title"), onpicture: searchPresent, onfault: (error) => fault.replaceChildren(faultNotice(error)) }).then(
    (row) => doors.append(row),
    (error) => fault.replaceChildren(faultNotice(error)),
  );
  if (session.searched) search(session.searched);
  else if (session.picture) searchPresent();
  return () => {
    shown.turn += 1;
    if (shown.url) URL.revokeObjectURL(shown.url);
    door.stop();
  };

  /** The picture that was looked at in the first act. */
  async function searchPresent() {
    try {
      search(await fileAt(`/api/pictures/${session.picture.id}/square.png`));
    } catch (error) {
      fault.replaceChildren(faultNotice(error));
    }
  }

  async function search(blob) {
    const turn = (shown.turn += 1);
    session.searched = blob;
    if (shown.url) URL.revokeObjectURL(shown.url);
    shown.url = URL.createObjectURL(blob);
    asked.replaceChildren(h("h2", {}, t("search.asked")), h("img", { class: "search-query", src: shown.url, alt: t("search.asked") }));
    fault.replaceChildren(busyLine(t("search.busy")));
    try {
      let answer = await api.send("/api/search", blob);
      if (turn !== shown.turn) return;
      fault.replaceChildren();
      draw(answer);
      announce(t("search.done"));
      while (answer.pixels && answer.pixels.images < answer.pixels.of) {
        await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
        if (turn !== shown.turn) return;
        answer = await api.send("/api/search", blob);
        if (turn !== shown.turn) return;
        found.querySelector('[data-part="by-pixels"]').replaceWith(byPixels(answer));
      }
    } catch (error) {
      if (turn === shown.turn) fault.replaceChildren(faultNotice(error));
    }
  }

  function draw(answer) {
    const { features, codes } = answer;
    const metric = features.metric === "cosine" ? "search.by_cosine" : "search.by_euclidean";
    found.replaceChildren(
      row("features", t("search.features"), t(metric, { layer: answer.layer, time: formatSeconds(features.seconds), network: formatSeconds(answer.network_seconds) }), features.matches, (distance) => formatFigure(Math.abs(distance) < 0.0005 ? 0 : distance)),
      byPixels(answer),
      codes
        ? row("codes", t("search.codes"), t("search.by_codes", { bits: formatNumber(codes.bits), bytes: formatNumber(codes.bits / 8), time: formatSeconds(codes.seconds) }), codes.matches, (share) => t("search.bits", { n: formatNumber(Math.round(share * codes.bits)) }))
        : "",
      h("section", { class: "card stack search-why" }, h("h2", {}, t("search.why")), h("p", {}, t("search.why_pixels")), h("p", {}, t("search.why_features")), codes ? h("p", {}, t("search.why_codes", { bits: formatNumber(codes.bits) })) : ""),
    );
  }

  function byPixels({ pixels }) {
    if (!pixels) return row("pixels", t("search.pixels"), t("search.no_cache"), [], formatPercent);
    const said = [t("search.by_pixels", { time: formatSeconds(pixels.seconds) })];
    if (pixels.images < pixels.of) said.push(t("search.so_far", { n: formatNumber(pixels.images), of: formatNumber(pixels.of) }));
    return row("pixels", t("search.pixels"), said.join(" "), pixels.matches, formatPercent);
  }

  function row(kind, title, note, matches, figure) {
    return h(
      "section",
      { class: "search-row", "aria-label": title, "data-part": `by-${kind}` },
      h("div", { class: "section-head" }, h("div", {}, h("h2", {}, title), h("p", { class: "note" }, note))),
      h("ol", { class: "matches" }, matches.map((match) => h("li", {}, tile(match, figure(match.distance))))),
    );
  }

  function tile(match, figure) {
    const gone = h("span", { class: "match-gone" }, t("search.gone"));
    const name = h("span", { class: "match-name", title: `${match.folder}/${match.name}` }, match.name);
    const under = [name, h("span", { class: "note" }, match.changed ? `${figure} · ${t("search.changed")}` : figure)];
    if (match.gone) return h("div", { class: "match" }, gone, under);
    const image = h("img", { src: api.image(`/api/index/${match.number}.jpg`), alt: "", loading: "lazy", width: 224, height: 224 });
    const button = h("button", { type: "button", class: "match", title: t("search.go_on", { name: match.name }), onclick: () => goOn(match) }, image, under);
    image.addEventListener("error", () => image.replaceWith(gone));
    return button;
  }

  async function goOn(match) {
    try {
      await search(await fileAt(`/api/index/${match.number}.jpg`));
      window.scrollTo(0, 0);
    } catch (error) {
      fault.replaceChildren(faultNotice(error));
    }
  }
}

async function fileAt(path) {
  const image = await api.load(path);
  const canvas = h("canvas", { width: image.naturalWidth, height: image.naturalHeight });
  canvas.getContext("2d").drawImage(image, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}
