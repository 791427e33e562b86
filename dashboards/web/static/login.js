// The page of log-in: the issuers at which people can, a token otherwise, and why the last attempt came to nothing.

import { by, el, say } from "./dom.js";
import { get, postText, remove } from "./api.js";

const WHY = {
  denied: "You, or your issuer, refused.",
  other: "That log-in was not begun in this browser, or took longer than ten minutes. Try again.",
  unavailable: "Your issuer, or our own database, does not answer. Try again later.",
  role: "You are logged in, and have no role here that lets you see this. An administrator of this server can give you one.",
  proof: "What your issuer said cannot be believed. The log of this server says why.",
};
const given = new URLSearchParams(location.search);

/** An address on this server, whatever stands in that of this page. */
function wanted() {
  const said = given.get("to") ?? "/";
  const to = new URL(URL.canParse(said, location.origin) ? said : "/", location.origin);
  return to.origin === location.origin ? to.href : `${location.origin}/`;
}

function tell(problem) {
  by("problem").hidden = !problem;
  say(by("problem"), problem);
}

async function draw() {
  const { issuers, tokens } = await get("/v1/issuers");
  const offered = issuers.filter((one) => one.browser);
  by("issuers").replaceChildren(...offered.map((one) => el("li", {},
    el("a", { href: `/login/start?${new URLSearchParams({ issuer: one.name, to: wanted().slice(location.origin.length) })}` },
      `Log in with ${one.name}`, el("small", { text: one.url })))));
  by("with-token").hidden = !tokens;
  by("nobody").hidden = tokens;
}

by("with-token").addEventListener("submit", async (event) => {
  event.preventDefault();
  tell("");
  try {
    await postText("/v1/session", JSON.stringify({ token: by("token").value.trim() }));
    location.assign(wanted());
  } catch (error) {
    tell(error.body?.detail ?? error.message);
  }
});

by("leave").addEventListener("click", async () => {
  try {
    await remove("/v1/session");
    location.assign("/login?out=1");
  } catch (error) {
    tell(error.message);
  }
});

const refused = given.get("refused");
if (refused) tell(WHY[refused] ?? "You are not let in. An administrator of this server can say why.");
by("leave").hidden = refused !== "role";
if (given.has("out")) {
  by("out").hidden = false;
  say(by("out"), "You are logged out here.");
}
draw().catch((error) => tell(error.message));
