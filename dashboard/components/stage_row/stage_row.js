// The sampling stages as cards.

const SVG = "http://www.w3.org/2000/svg"
const WIDTH = 200
const CURVE = 74

function draw(tag, attributes) {
  const node = document.createElementNS(SVG, tag)
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value)
  return node
}

function percent(p) {
  if (p === 0) return "0"
  if (p >= 0.0995) return (100 * p).toFixed(0) + " %"
  return p >= 0.0001 ? (100 * p).toPrecision(2) + " %" : "<0.01 %"
}

function bars(card, tokens, largest) {
  const table = part("div", "bars")
  table.setAttribute("role", "img")
  table.setAttribute(
    "aria-label",
    `${card.title}: ` + tokens.map((t, i) => `${t} ${percent(card.before[i])} to ${percent(card.after[i])}`).join(", ")
  )
  tokens.forEach((token, i) => {
    const line = part("div", card.gone[i] ? "line gone" : "line")
    line.title = `${token}\nbefore ${card.before[i]}\nafter ${card.gone[i] ? "removed" : card.after[i]}`
    line.append(part("span", "token", token))
    const track = part("span", "track")
    const before = part("span", "before")
    const after = part("span", "after")
    before.style.width = `${(100 * card.before[i]) / largest}%`
    after.style.width = `${(100 * card.after[i]) / largest}%`
    track.append(before, after)
    line.append(track, part("span", "number", card.gone[i] ? "–" : percent(card.after[i])))
    table.append(line)
  })
  return table
}

// Ranks on a logarithmic axis: the first few tokens and the long tail are both to be seen.
function curve(data) {
  const last = Math.max(2, data.ranks[data.ranks.length - 1])
  const x = rank => 2 + ((WIDTH - 4) * Math.log(rank)) / Math.log(last)
  const y = value => 4 + (CURVE - 8) * (1 - value)
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${CURVE}`, class: "curve", role: "img" })
  const name = `Cumulative probability by number of tokens; cut after ${data.cut.toLocaleString("en")} tokens at ${data.kept.toFixed(4)}`
  svg.setAttribute("aria-label", name)
  const title = draw("title", {})
  title.textContent = name
  svg.append(title)
  svg.append(draw("line", { x1: 2, x2: WIDTH - 2, y1: y(0), y2: y(0), class: "axis" }))
  const points = data.ranks.map((rank, i) => `${x(rank).toFixed(1)},${y(data.cumulative[i]).toFixed(1)}`)
  svg.append(draw("polyline", { points: points.join(" "), class: "all" }))
  const kept = data.ranks.map((rank, i) => (rank <= data.cut ? points[i] : null)).filter(Boolean)
  if (kept.length > 1) svg.append(draw("polyline", { points: kept.join(" "), class: "kept" }))
  const at = x(data.cut)
  svg.append(draw("line", { x1: at, x2: at, y1: 2, y2: CURVE - 2, class: "cut" }))
  return svg
}

function button(card, action, sign, name, disabled) {
  const node = part("button", "move", sign)
  node.type = "button"
  node.dataset.action = action
  node.disabled = disabled
  node.title = name
  node.setAttribute("aria-label", `${card.title}: ${name}`)
  return node
}

function drawCard(card, place, cards, tokens, largest) {
  const box = part("section", card.active ? "card active" : "card")
  box.dataset.stage = card.name
  const head = part("header")
  head.append(part("span", "place", String(place + 1)), part("span", "title", card.title))
  head.append(button(card, "earlier", "◀", "run earlier", place === 0))
  head.append(button(card, "later", "▶", "run later", place === cards.length - 1))
  const toggle = part("button", card.off ? "switch off" : "switch", card.off ? "off" : "on")
  toggle.type = "button"
  toggle.dataset.action = "switch"
  toggle.setAttribute("role", "switch")
  toggle.setAttribute("aria-checked", String(!card.off))
  toggle.setAttribute("aria-label", `${card.title}: runs`)
  head.append(toggle)
  box.append(head, part("div", "label", card.label))
  if (!card.active) return box
  box.append(bars(card, tokens, largest))
  if (card.curve) box.append(curve(card.curve))
  const facts = part("div", "facts")
  const tokensLine =
    card.n_after === card.n_before
      ? `${card.n_after.toLocaleString("en")} tokens, none removed`
      : `${card.n_before.toLocaleString("en")} → ${card.n_after.toLocaleString("en")} tokens`
  facts.append(part("div", "", tokensLine))
  facts.append(part("div", "", `probability removed ${card.mass.toFixed(4)}`))
  facts.append(part("div", "", `entropy ${card.entropy_before.toFixed(3)} → ${card.entropy.toFixed(3)} bits`))
  box.append(facts)
  return box
}

export default function ({ data, parentElement, setTriggerValue }) {
  let row = parentElement.querySelector(".row")
  const focused = row?.contains(row.getRootNode().activeElement) ? row.getRootNode().activeElement : null
  const kept = focused && {
    stage: focused.closest(".card")?.dataset.stage,
    action: focused.dataset.action,
  }
  if (!row) {
    row = part("div", "row")
    parentElement.append(row)
  }
  row.replaceChildren()
  const largest = Math.max(1e-9, ...data.cards.flatMap(c => (c.active ? [...c.before, ...c.after] : [])))
  data.cards.forEach((card, place) => row.append(drawCard(card, place, data.cards, data.tokens, largest)))
  row.dataset.draws = String(Number(row.dataset.draws ?? 0) + 1)
  row.onclick = event => {
    const node = event.target.closest("button")
    if (node && !node.disabled) {
      setTriggerValue("asked", { stage: node.closest(".card").dataset.stage, action: node.dataset.action })
    }
  }
  if (kept) row.querySelector(`[data-stage="${kept.stage}"] [data-action="${kept.action}"]`)?.focus()
}
