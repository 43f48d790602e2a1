// Draws a strip of tokens from one binary payload. The format is written in __init__.py beside this file.

const HUES = 6
// From this many tokens on, lines that are off the screen are neither laid out nor painted.
const MANY = 1024
// A line without a newline token is cut after this many, so that it can be skipped while off the screen.
const LONGEST_LINE = 512

function decode(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  checkMagic(bytes, "TKS1")
  const jsonLength = view.getUint32(4, true)
  const nValues = view.getUint32(8, true)
  const strip = JSON.parse(new TextDecoder().decode(bytes.subarray(12, 12 + jsonLength)))
  const start = bytes.byteLength - 4 * nValues
  strip.values = nValues ? Array.from({ length: nValues }, (_, i) => view.getFloat32(start + 4 * i, true)) : null
  return strip
}

// What another part of the page selects reaches a strip by its name, apart from the payload.
const selections = (window[Symbol.for("token_strip.selections")] ??= new Map())
const strips = new WeakMap()

export default function ({ data, parentElement, setTriggerValue }) {
  const { one: strip, leave } = mounted(strips, parentElement, Strip)
  strip.report = position => setTriggerValue("clicked", position)
  strip.update(data)
  return leave
}

class Strip {
  constructor(parent) {
    this.root = part("div", "strip")
    this.root.dir = "ltr"
    this.root.setAttribute("role", "listbox")
    this.root.dataset.draws = "0"
    this.tip = part("div", "tip")
    this.tip.setAttribute("role", "tooltip")
    if (this.tip.showPopover) this.tip.popover = "manual"
    this.tip.hidden = !this.tip.showPopover
    parent.append(this.root, this.tip)
    this.tokens = []
    this.active = 0
    this.selected = null
    this.checksum = ""

    // One handler for all tokens.
    const position = event => {
      const token = event.target.closest?.("[data-i]")
      return token ? Number(token.dataset.i) : null
    }
    this.root.onclick = event => this.choose(position(event))
    this.root.onpointerover = event => this.showTip(position(event))
    this.root.onpointerleave = () => this.hideTip()
    this.root.addEventListener("focusin", event => {
      const i = position(event)
      if (i !== null) this.moveTo(i)
      if (event.target.matches(":focus-visible")) this.showTip(i)
    })
    this.root.addEventListener("focusout", () => this.hideTip())
    this.root.onkeydown = event => this.onKey(event)
    this.hide = () => this.hideTip()
    this.root.onscroll = this.hide
    window.addEventListener("scroll", this.hide, { capture: true, passive: true })
    this.onSelection = event => {
      if (event.detail === this.name) this.mark(selections.get(this.name) ?? null)
    }
    document.addEventListener("token_strip.selection", this.onSelection)
  }

  remove() {
    window.removeEventListener("scroll", this.hide, { capture: true })
    document.removeEventListener("token_strip.selection", this.onSelection)
    this.root.remove()
    this.tip.remove()
  }

  update(data) {
    const bytes = asBytes(data)
    const checksum = crc32(bytes)
    if (checksum !== this.checksum) {
      this.draw(decode(bytes))
      this.checksum = checksum
      this.root.dataset.checksum = checksum
      this.root.dataset.bytes = String(bytes.byteLength)
      this.root.dataset.draws = String(Number(this.root.dataset.draws) + 1)
    }
    this.readTheme()
    this.mark(selections.get(this.name) ?? null)
  }

  // How far a colour may go from the page's background before the page's text is hard to read on it.
  readTheme() {
    const style = getComputedStyle(this.root)
    const channels = style.backgroundColor.match(/[\d.]+/g).slice(0, 3).map(Number)
    const [r, g, b] = channels.map(c => (c / 255 <= 0.04045 ? c / 3294.6 : ((c / 255 + 0.055) / 1.055) ** 2.4))
    this.root.dataset.dark = String(0.2126 * r + 0.7152 * g + 0.0722 * b < 0.18)
  }

  draw(strip) {
    this.hideTip()
    this.strip = strip
    this.name = strip.key
    const focused = this.tokens.includes(this.root.getRootNode().activeElement)
    this.root.setAttribute("aria-label", strip.name)
    this.root.classList.toggle("many", strip.labels.length > MANY)
    this.tokens = []
    this.selected = null
    const page = document.createDocumentFragment()
    let line = null
    let inLine = 0
    const groups = strip.groups ?? strip.labels.map((_, i) => i)
    strip.labels.forEach((label, i) => {
      const first = i === 0 || groups[i] !== groups[i - 1]
      const last = groups[i + 1] !== groups[i]
      if (line === null || (first && inLine >= LONGEST_LINE)) {
        line = part("div", "line")
        page.append(line)
        inLine = 0
      }
      let home = line
      if (first && !last && strip.graphemes?.[groups[i]]) {
        home = part("span", "together")
        line.append(home)
        const whole = part("bdi", "grapheme", strip.graphemes[groups[i]])
        whole.setAttribute("aria-hidden", "true")
        home.append(whole)
      }
      const token = part("bdi", "token", label)
      token.dataset.i = i
      token.tabIndex = -1
      token.setAttribute("role", "option")
      token.setAttribute("aria-selected", "false")
      if (!first || !last) token.classList.add("part", ...(first ? [] : ["after"]), ...(last ? [] : ["before"]))
      if (strip.scale === "sequential") {
        const value = strip.values?.[i]
        if (Number.isFinite(value)) token.style.setProperty("--value", Math.min(1, Math.max(0, value)).toFixed(4))
        else token.classList.add("none")
      } else {
        token.dataset.hue = groups[i] % HUES
      }
      home.append(token)
      this.tokens.push(token)
      inLine += 1
      if (label.includes("⏎")) line = null
    })
    this.root.classList.toggle("sequential", strip.scale === "sequential")
    this.root.replaceChildren(page)
    this.active = Math.min(this.active, Math.max(0, this.tokens.length - 1))
    if (this.tokens.length) this.tokens[this.active].tabIndex = 0
    if (focused) this.tokens[this.active]?.focus()
  }

  moveTo(i) {
    if (!this.tokens[i]) return
    this.tokens[this.active].tabIndex = -1
    this.active = i
    this.tokens[i].tabIndex = 0
  }

  choose(i) {
    if (i === null || !this.tokens[i]) return
    this.moveTo(i)
    if (this.strip.selectable) this.report(i)
  }

  mark(i) {
    if (this.selected !== null) this.tokens[this.selected]?.setAttribute("aria-selected", "false")
    this.selected = i
    const token = i === null ? null : this.tokens[i]
    if (!token) return
    token.setAttribute("aria-selected", "true")
    if (!this.tokens.includes(this.root.getRootNode().activeElement)) this.moveTo(i)
  }

  onKey(event) {
    const last = this.tokens.length - 1
    const target = {
      ArrowLeft: () => this.active - 1,
      ArrowRight: () => this.active + 1,
      ArrowUp: () => this.otherLine(-1),
      ArrowDown: () => this.otherLine(1),
      Home: () => 0,
      End: () => last,
    }[event.key]
    if (target) {
      this.moveTo(Math.min(last, Math.max(0, target())))
      this.tokens[this.active]?.focus()
    } else if (event.key === "Enter" || event.key === " ") {
      this.choose(this.active)
    } else if (event.key === "Escape") {
      this.hideTip()
      return
    } else {
      return
    }
    event.preventDefault()
  }

  // The token of the next row, up or down, that is nearest to the active one.
  otherLine(step) {
    const from = this.tokens[this.active].getBoundingClientRect()
    let best = this.active
    let row = null
    let distance = Infinity
    for (let i = this.active + step; i >= 0 && i < this.tokens.length; i += step) {
      const box = this.tokens[i].getBoundingClientRect()
      if (Math.abs(box.top - from.top) < 4) continue
      row ??= box.top
      if (Math.abs(box.top - row) >= 4) break
      const away = Math.abs(box.left - from.left)
      if (away < distance) [best, distance] = [i, away]
    }
    return best
  }

  showTip(i) {
    if (i === null || !this.tokens[i]) return
    const { labels, ids, hover } = this.strip
    const heading = part("bdi", "heading", labels[i])
    const place = part("div", "", `position ${i}` + (ids ? `, id ${ids[i]}` : ""))
    const notes = part("div", "notes", hover?.[i] ?? "")
    this.tip.replaceChildren(heading, place, notes)
    if (this.tip.showPopover) this.tip.showPopover()
    else this.tip.hidden = false
    const box = this.tokens[i].getBoundingClientRect()
    const { width, height } = this.tip.getBoundingClientRect()
    const left = Math.min(box.left, window.innerWidth - width - 8)
    const above = box.top - height - 6
    const top = above >= 8 ? above : Math.min(box.bottom + 6, window.innerHeight - height - 8)
    this.tip.style.left = `${Math.max(8, left)}px`
    this.tip.style.top = `${Math.max(8, top)}px`
  }

  hideTip() {
    if (this.tip.matches?.(":popover-open")) this.tip.hidePopover()
    else if (!this.tip.showPopover) this.tip.hidden = true
  }
}
