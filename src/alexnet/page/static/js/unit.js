import { h } from "./parts.js";

export async function unitAct(main, context) {
  main.replaceChildren(h("h1", {}, context.t("unit.title", context.address)));
  return () => {};
}
