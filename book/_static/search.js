// Finds the sections that hold all the words of the question, those with a word in their title first.
const field = document.querySelector("#fl-search input");
const found = document.getElementById("fl-found");
const hits = document.getElementById("fl-hits");
const plain = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
const index = typeof SECTIONS === "undefined" ? [] : SECTIONS.map(([page, anchor, chapter, title, text]) =>
  ({ page, anchor, chapter, title, text, low: plain(text), head: plain(title + " " + chapter) }));

function score(section, words) {
  let sum = 0;
  for (const word of words) {
    const times = section.low.split(word).length - 1, titled = section.head.includes(word);
    if (!times && !titled) return 0;
    sum += 20 * titled + 5 * plain(section.title).split(/\W+/).includes(word) + Math.min(times, 8);
  }
  return sum;
}

// About thirty words around the first hit, with the words that were asked for marked.
function snippet(section, words) {
  const line = document.createElement("p"), low = section.low;
  const first = Math.min(...words.map((word) => low.indexOf(word)).filter((at) => at >= 0).concat(low.length));
  let from = first >= low.length ? 0 : Math.max(0, first - 80);
  if (from) from = low.indexOf(" ", from) + 1;
  const text = section.text.slice(from, from + 220);
  const pattern = new RegExp(`(${words.map((w) => w.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|")})`, "gi");
  line.append(from ? "… " : "");
  text.split(pattern).forEach((part, k) => {
    if (k % 2) { const mark = document.createElement("mark"); mark.textContent = part; line.append(mark); }
    else line.append(part);
  });
  line.append(from + 220 < section.text.length ? " …" : "");
  return line;
}

function search() {
  const words = plain(field.value).split(/\s+/).filter(Boolean);
  hits.replaceChildren();
  if (!index.length) { found.textContent = "The file with the book's words, _static/search-data.js, is missing."; return; }
  if (!words.length) { found.textContent = ""; return; }
  const all = index.map((section) => [score(section, words), section]).filter(([s]) => s).sort((a, b) => b[0] - a[0]);
  found.textContent = all.length ? `${all.length} section${all.length > 1 ? "s" : ""}${all.length > 50 ? "; the best 50 are shown" : ""}`
    : "No section holds all these words.";
  for (const [, section] of all.slice(0, 50)) {
    const item = document.createElement("li"), link = document.createElement("a");
    link.href = `${section.page}?highlight=${encodeURIComponent(words.join(" "))}#${section.anchor}`;
    link.textContent = section.title === section.chapter ? section.chapter : `${section.chapter}: ${section.title}`;
    item.append(link, snippet(section, words));
    hits.append(item);
  }
}

field.value = new URLSearchParams(location.search).get("q") || "";
field.form.addEventListener("submit", (event) => { event.preventDefault(); search(); });
field.addEventListener("input", search);
field.focus();
search();
