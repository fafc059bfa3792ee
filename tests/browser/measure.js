// Returns what is wrong with the page as it is shown: a list of sentences, empty if nothing is.
const TOLERANCE = 2, MIN_CONTRAST = 4.5;
const problems = [];
const root = document.documentElement;

function shorten(text) {
  return JSON.stringify(text.trim().replace(/\s+/g, " ").slice(0, 50));
}

// 1. The page is no wider than the window.
if (root.scrollWidth > window.innerWidth) {
  problems.push(`the page is ${root.scrollWidth} px wide in a window of ${window.innerWidth} px`);
}

// Every visible line of text, with its rectangle and what it belongs to.
const lines = [];
const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode, element = node.parentElement;
  if (!node.data.trim() || element.closest("title, style, script, defs")) continue;
  const range = document.createRange();
  range.selectNodeContents(node);
  const svg = element.closest("svg");
  // the box of an SVG's text, because a range's is as high as the line
  const rects = svg ? [element.getBoundingClientRect()] : [...range.getClientRects()];
  for (const rect of rects) {
    if (rect.width && rect.height) lines.push({ text: node.data, element, svg, rect });
  }
}
if (!lines.length) problems.push("the page shows no text");

// 2. No text is cut: by its chart, by a box that hides what is too long, or by the window.
for (const { text, element, svg, rect } of lines) {
  const scrolled = element.closest(".scroll");
  let box = svg ? svg.getBoundingClientRect() : null;
  for (let e = element; e && !svg && !scrolled; e = e.parentElement) {
    if (getComputedStyle(e).overflowX !== "visible" && e !== root && e !== document.body) {
      box = e.getBoundingClientRect();
      break;
    }
  }
  if (!box && !scrolled) box = { left: 0, right: window.innerWidth, top: -1e9, bottom: 1e9 };
  if (box && (rect.left < box.left - TOLERANCE || rect.right > box.right + TOLERANCE ||
              rect.top < box.top - TOLERANCE || rect.bottom > box.bottom + TOLERANCE)) {
    problems.push(`${shorten(text)} is cut`);
  }
}

// 3. No two texts overlap.
for (let i = 0; i < lines.length; i++) {
  for (let j = i + 1; j < lines.length; j++) {
    const a = lines[i].rect, b = lines[j].rect;
    const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (across > TOLERANCE && down > TOLERANCE + 1) {
      problems.push(`${shorten(lines[i].text)} and ${shorten(lines[j].text)} overlap`);
    }
  }
}

// 4. Text stands out from its background (WCAG 2.1, success criterion 1.4.3).
function channels(colour) {
  return colour.match(/[\d.]+/g).map(Number);
}
function luminance([r, g, b]) {
  const [x, y, z] = [r, g, b].map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
}
function background(element) {
  for (let e = element; e; e = e.parentElement) {
    const found = channels(getComputedStyle(e).backgroundColor);
    if (found.length === 3 || found[3] > 0) return found;
  }
  return [255, 255, 255];
}
const ground = background(document.body).join();
for (const { text, element, svg } of lines) {
  const style = getComputedStyle(element);
  const colour = channels(svg ? style.fill : style.color);
  if (svg && colour.join() === ground) continue; // a number on a badge
  const [high, low] = [luminance(colour), luminance(background(svg || element))].sort((a, b) => b - a);
  const contrast = (high + 0.05) / (low + 0.05);
  if (contrast < MIN_CONTRAST) problems.push(`${shorten(text)} has a contrast of ${contrast.toFixed(1)}`);
}

return [...new Set(problems)];
