import { h } from "./parts.js";

export async function motionAct(main, context) {
  main.replaceChildren(h("h1", {}, context.t("motion.title")));
  return () => {};
}
