// The difference of two texts, word by word.

import { h } from "/static/dom.js";

const MOST_WORDS = 500; // of one text: the table of the comparison grows with the product

/** What is compared: capitals and punctuation at the ends of a word are no difference. */
function plain(word) {
  return word.toLowerCase().replace(/^[^\p{L}\p{N}]+|[^\p{L}\p{N}]+$/gu, "") || word;
}

/** {before, after}: the words of each text as [word, isShared], by a longest common subsequence; null for texts that are too long. */
export function wordDifference(before, after) {
  const [a, b] = [before, after].map((text) => text.split(/\s+/).filter(Boolean));
  if (Math.max(a.length, b.length) > MOST_WORDS) return null;
  const [x, y] = [a.map(plain), b.map(plain)];
  // longest[i][j]: of the words from i and j on
  const longest = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) longest[i][j] = x[i] === y[j] ? longest[i + 1][j + 1] + 1 : Math.max(longest[i + 1][j], longest[i][j + 1]);
  }
  const shared = [new Set(), new Set()];
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    if (x[i] === y[j]) {
      shared[0].add(i++);
      shared[1].add(j++);
    } else if (longest[i + 1][j] >= longest[i][j + 1]) i++;
    else j++;
  }
  const marked = (words, own) => words.map((word, place) => [word, own.has(place)]);
  return { before: marked(a, shared[0]), after: marked(b, shared[1]) };
}

/** Words with those that are not shared in elements of `tag`, neighbours in one. */
function spans(words, tag) {
  const out = [];
  for (const [word, isShared] of words) {
    const last = out.at(-1);
    if (last?.isShared === isShared) last.words.push(word);
    else out.push({ isShared, words: [word] });
  }
  return out.map((each, place) => [place ? " " : "", each.isShared ? each.words.join(" ") : h(tag, {}, each.words.join(" "))]);
}

/** [before, after] as content of elements: what was removed stands in `del`, what was added in `ins`. */
export function markedTexts(before, after) {
  const difference = before && after && wordDifference(before, after);
  if (!difference) return [before, after];
  return [spans(difference.before, "del"), spans(difference.after, "ins")];
}
