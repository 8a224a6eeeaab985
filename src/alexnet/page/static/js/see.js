import { h } from "./parts.js";

export async function seeAct(main, context) {
  main.replaceChildren(h("h1", {}, context.t("see.title")));
  return () => {};
}
