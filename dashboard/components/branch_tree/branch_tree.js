// Draws a tree of continuations from one binary payload. The format is written in __init__.py beside this file.

const LABEL = 0, ID = 1, PROB = 2, RANK = 3, ENTROPY = 4, FILTERED = 5, SURVIVORS = 6, FORCED = 7, OTHERS = 8

const trees = new WeakMap()

export default function ({ data, parentElement, setTriggerValue }) {
  const { one: tree, leave } = mounted(trees, parentElement, Tree)
  tree.report = taken => setTriggerValue("taken", taken)
  tree.update(data)
  return leave
}

function decode(bytes) {
  checkMagic(bytes, "BRT1")
  return JSON.parse(new TextDecoder().decode(bytes.subarray(4)))
}

const share = value => (value >= 0.0001 || value === 0 ? value.toFixed(4) : value.toExponential(1))

// How strongly a token is coloured, 0 to 1.
const STRENGTH = {
  probability: token => token[PROB],
  rank: token => (token[RANK] <= 1 ? 1 : token[RANK] <= 10 ? 0.66 : token[RANK] <= 100 ? 0.33 : 0),
  entropy: (token, mostBits) => token[ENTROPY] / mostBits,
  none: () => 0,
}

class Tree {
  constructor(parent) {
    this.root = part("div", "tree")
    this.root.dir = "ltr"
    this.tip = part("div", "tip")
    this.tip.setAttribute("role", "tooltip")
    this.menu = part("div", "menu")
    this.menu.setAttribute("role", "menu")
    for (const floating of [this.tip, this.menu]) {
      floating.popover = floating === this.tip ? "manual" : "auto"
    }
    parent.append(this.root, this.tip, this.menu)
    this.branches = new Map()
    this.root.onclick = event => this.open(this.at(event))
    this.root.onpointerover = event => this.showTip(this.at(event))
    this.root.onpointerleave = () => this.hideTip()
    this.root.addEventListener("focusin", event => {
      if (event.target.matches(":focus-visible")) this.showTip(this.at(event))
    })
    this.root.addEventListener("focusout", () => this.hideTip())
    this.root.onkeydown = event => this.onKey(event)
    this.menu.onkeydown = event => this.onMenuKey(event)
    this.hide = () => this.hideTip()
    window.addEventListener("scroll", this.hide, { capture: true, passive: true })
  }

  remove() {
    window.removeEventListener("scroll", this.hide, { capture: true })
    for (const made of [this.root, this.tip, this.menu]) made.remove()
  }

  // The token under an event, as {branch, i, element}.
  at(event) {
    const element = event.target.closest?.("[data-i]")
    if (!element) return null
    const branch = this.branches.get(Number(element.closest("[data-number]").dataset.number))
    return branch ? { branch, i: Number(element.dataset.i), element } : null
  }

  update(data) {
    const tree = decode(asBytes(data))
    const recolour = tree.colour !== this.colour || tree.mostBits !== this.mostBits
    this.colour = tree.colour
    this.mostBits = tree.mostBits
    this.root.dataset.dark = String(isDark(this.root))
    const gone = new Set(this.branches.keys())
    let family = null
    let families = 0
    for (const branch of tree.branches) {
      gone.delete(branch.number)
      let drawn = this.branches.get(branch.number)
      if (!drawn) {
        drawn = this.make(branch)
        this.branches.set(branch.number, drawn)
      }
      this.fill(drawn, branch, recolour)
      if (branch.depth === 0) {
        family = this.root.children[families] ?? this.root.appendChild(part("div", "family"))
        families += 1
        family.placed = 0
      }
      if (family.children[family.placed] !== drawn.element) {
        family.insertBefore(drawn.element, family.children[family.placed] ?? null)
      }
      family.placed += 1
    }
    for (const number of gone) {
      this.branches.get(number).element.remove()
      this.branches.delete(number)
    }
    while (this.root.children.length > families) this.root.lastChild.remove()
    this.root.dataset.tokens = String(tree.branches.reduce((sum, branch) => sum + branch.tokens.length, 0))
  }

  make(branch) {
    const element = part("section", "branch")
    element.dataset.number = branch.number
    const head = part("header")
    const line = part("div", "line")
    element.append(head, line)
    return { element, head, line, number: branch.number, tokens: [], spans: [] }
  }

  fill(drawn, branch, recolour) {
    const { element, head, line } = drawn
    element.style.setProperty("--depth", branch.depth)
    element.classList.toggle("running", branch.running)
    drawn.first = branch.first
    drawn.name = branch.name
    const said = [branch.name, ...branch.notes].join("\n")
    if (said !== drawn.said) {
      drawn.said = said
      const name = part("strong")
      const letters = part("bdi", "", branch.name)
      name.append(letters)
      head.replaceChildren(name, ...branch.notes.map(note => part("span", "", note)))
    }
    const shared = branch.shared.join("")
    const same = shared === drawn.shared && drawn.tokens.length <= branch.tokens.length
      && drawn.tokens.every((token, i) => token[ID] === branch.tokens[i][ID])
    if (!same) {
      drawn.shared = shared
      drawn.spans = []
      line.replaceChildren(...branch.shared.map(label => part("bdi", "shared", label)))
    }
    drawn.tokens = branch.tokens
    for (let i = drawn.spans.length; i < branch.tokens.length; i++) {
      const token = branch.tokens[i]
      const span = part("bdi", token[FORCED] ? "token forced" : "token", token[LABEL])
      span.dataset.i = i
      span.tabIndex = i === 0 ? 0 : -1
      span.setAttribute("role", "button")
      span.setAttribute("aria-haspopup", "menu")
      this.colourOne(span, token)
      line.append(span)
      if (token[LABEL].includes("⏎")) line.append(part("br"))
      drawn.spans.push(span)
    }
    if (recolour) drawn.spans.forEach((span, i) => this.colourOne(span, branch.tokens[i]))
  }

  colourOne(span, token) {
    const strength = STRENGTH[this.colour](token, this.mostBits)
    span.style.setProperty("--value", Math.min(1, Math.max(0, strength)).toFixed(4))
  }

  place(floating, element) {
    floating.showPopover()
    const box = element.getBoundingClientRect()
    const { width, height } = floating.getBoundingClientRect()
    const left = Math.min(box.left, window.innerWidth - width - 8)
    const below = box.bottom + 4
    const top = below + height + 8 <= window.innerHeight ? below : Math.max(8, box.top - height - 4)
    floating.style.left = `${Math.max(8, left)}px`
    floating.style.top = `${top}px`
  }

  showTip(at) {
    if (!at || this.menu.matches(":popover-open")) return
    const token = at.branch.tokens[at.i]
    const heading = part("bdi", "heading", token[LABEL])
    const lines = [
      `token ${at.branch.first + at.i}, id ${token[ID]}${token[FORCED] ? ", taken by you" : ""}`,
      `probability ${share(token[PROB])}, rank ${token[RANK].toLocaleString("en")}`,
      `after the stages ${share(token[FILTERED])}, of ${token[SURVIVORS].toLocaleString("en")} tokens left`,
      `entropy ${token[ENTROPY].toFixed(2)} bits`,
    ].map(text => part("div", "", text))
    this.tip.replaceChildren(heading, ...lines, this.table(token, false))
    this.place(this.tip, at.element)
  }

  hideTip() {
    if (this.tip.matches(":popover-open")) this.tip.hidePopover()
  }

  // What else could have come: label, probability, probability after the stages.
  table(token, takeable) {
    const rows = token[OTHERS].map(([label, id, prob, filtered, removed]) => {
      const row = part(takeable ? "button" : "div", "other")
      if (takeable) {
        row.type = "button"
        row.dataset.id = id
        row.setAttribute("role", "menuitem")
      }
      row.classList.toggle("taken", id === token[ID])
      row.classList.toggle("removed", removed === 1)
      // What no stage removed can come, even where its probability is below what float32 holds.
      const after = removed || filtered > 0 ? share(filtered) : "<1e-45"
      const bar = part("i")
      bar.style.setProperty("--share", prob)
      row.append(bar, part("bdi", "", label), part("span", "", share(prob)), part("span", "", after))
      return row
    })
    const head = part("div", "other head")
    head.append(part("i"), part("span", "", "could come"), part("span", "", "before"), part("span", "", "after"))
    const table = part("div", "others")
    table.append(head, ...rows)
    return table
  }

  open(at) {
    if (!at) return
    this.hideTip()
    const token = at.branch.tokens[at.i]
    this.menu.replaceChildren(
      part("div", "heading", "Take another token here; a branch grows from it:"),
      this.table(token, true)
    )
    this.menu.onclick = event => {
      const chosen = event.target.closest?.("[data-id]")
      if (!chosen) return
      this.menu.hidePopover()
      this.report([at.branch.number, at.branch.first + at.i, Number(chosen.dataset.id)])
    }
    this.opener = at.element
    this.place(this.menu, at.element)
    this.menu.querySelector("[data-id]")?.focus()
  }

  onKey(event) {
    const at = this.at(event)
    if (!at) return
    const { spans } = at.branch
    const target = { ArrowLeft: at.i - 1, ArrowRight: at.i + 1, Home: 0, End: spans.length - 1 }[event.key]
    if (target !== undefined) {
      const next = spans[Math.min(spans.length - 1, Math.max(0, target))]
      at.element.tabIndex = -1
      next.tabIndex = 0
      next.focus()
    } else if (event.key === "Enter" || event.key === " ") {
      this.open(at)
    } else {
      return
    }
    event.preventDefault()
  }

  onMenuKey(event) {
    const rows = [...this.menu.querySelectorAll("[data-id]")]
    const i = rows.indexOf(this.menu.getRootNode().activeElement)
    const target = { ArrowUp: i - 1, ArrowDown: i + 1, Home: 0, End: rows.length - 1 }[event.key]
    if (target !== undefined) {
      rows[Math.min(rows.length - 1, Math.max(0, target))]?.focus()
      event.preventDefault()
    } else if (event.key === "Escape") {
      this.menu.hidePopover()
      this.opener?.focus()
      event.preventDefault()
    }
  }
}

function isDark(element) {
  const colour = getComputedStyle(element).getPropertyValue("--st-background-color").trim()
  const [r, g, b] = colour.startsWith("#")
    ? [1, 3, 5].map(i => parseInt(colour.length === 4 ? colour[(i + 1) / 2].repeat(2) : colour.slice(i, i + 2), 16))
    : (colour.match(/\d+/g) ?? [255, 255, 255]).map(Number)
  return 0.299 * r + 0.587 * g + 0.114 * b < 128
}
