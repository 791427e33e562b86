// One colour per value, the same on every page: states by meaning, everything else by a hash of its name.

const COLOURS = 12; // classes series-0 … series-11 in tokens.css, told apart with any colour vision.
const MEANT = {
  completed: 2, done: 2, failed: 1, cancelled: 3, timeout: 4, evicted: 8, unknown: "other",
};
const STORE = "siteward.colours";
const MOST = 500; // values of one dimension remembered over pages.
const taken = restored(); // dimension to a map of value to class.

function restored() {
  try {
    const kept = Object.entries(JSON.parse(sessionStorage.getItem(STORE) ?? "{}"));
    return new Map(kept.map(([dimension, known]) => [dimension, new Map(known.filter(([, name]) => /^series-\d+$/.test(name)))]));
  } catch {
    return new Map();
  }
}

/** The class of a value of a dimension, `series-N`; the sum of all others has the quiet class `series-other`. */
export function colour(dimension, value) {
  const text = String(value);
  if (dimension === "state" && text in MEANT) return `series-${MEANT[text]}`;
  return taken.get(dimension)?.get(text) ?? `series-${hash(text) % COLOURS}`;
}

/** Gives values of a dimension that will stand side by side different colours, as far as there are any. */
export function spread(dimension, values) {
  const known = taken.get(dimension) ?? new Map();
  taken.set(dimension, known);
  const texts = values.map(String).sort();
  const used = new Set(texts.filter((text) => known.has(text)).map((text) => known.get(text)));
  const fresh = texts.filter((text) => !known.has(text));
  for (const text of fresh) {
    let slot = hash(text) % COLOURS;
    for (let tries = 0; tries < COLOURS && used.has(`series-${slot}`); tries += 1) slot = (slot + 1) % COLOURS;
    known.set(text, `series-${slot}`);
    used.add(`series-${slot}`);
  }
  if (!fresh.length) return;
  const kept = [...taken].map(([name, map]) => [name, [...map].slice(-MOST)]);
  sessionStorage.setItem(STORE, JSON.stringify(Object.fromEntries(kept)));
}

function hash(text) {
  let sum = 2_166_136_261;
  for (const character of text) sum = Math.imul(sum ^ character.codePointAt(0), 16_777_619) >>> 0;
  return (sum ^ (sum >>> 15)) >>> 0;
}
