// Who is logged in, at the foot of the navigation, and the way out: of this browser, or of all of them.

import { by, el, say } from "./dom.js";
import { remove } from "./api.js";

const NEXT = 3_000; // milliseconds in which a second press on a button means what it asks.

async function leave(everywhere) {
  const { issuer } = await remove(`/v1/session?everywhere=${everywhere}`);
  // The session at the issuer is another one: who has left here and not there is let in again without a word.
  location.assign(everywhere && issuer ? issuer : "/login?out=1");
}

function everywhere(event) {
  const button = event.currentTarget;
  if (button.dataset.asked) {
    leave(true).catch((error) => say(by("account-problem"), error.message));
    return;
  }
  button.dataset.asked = "yes";
  say(button, "Really everywhere?");
  setTimeout(() => {
    delete button.dataset.asked;
    say(button, "Log out everywhere");
  }, NEXT);
}

/** Shows who is logged in; nothing where nobody had to. */
export function showAccount({ subject, issuer, grants }) {
  if (!issuer) return;
  const roles = grants.map((one) => `${one.role} of ${one.vos.map((vo) => (vo === "*" ? "every VO" : vo)).join(", ")}`);
  by("account").replaceChildren(
    el("p", { class: "account-name", title: `${subject} of ${issuer}`, text: subject }),
    el("p", { class: "account-roles", text: roles.join("; ") || "no role" }),
    el("p", { class: "account-roles", id: "account-problem", role: "alert" }),
    el("button", {
      type: "button", class: "quiet", text: "Log out",
      click: () => leave(false).catch((error) => say(by("account-problem"), error.message)),
    }),
    el("button", { type: "button", class: "quiet", text: "Log out everywhere", click: everywhere }),
  );
  by("account").hidden = false;
}
