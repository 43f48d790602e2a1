// Tells the strip of the same page which token is selected. It is apart from the strip's payload, so that a
// selection sends a few bytes and not the tokens again.

const selections = (window[Symbol.for("token_strip.selections")] ??= new Map())

function say(strip, selected) {
  if (selected === null) selections.delete(strip)
  else selections.set(strip, selected)
  document.dispatchEvent(new CustomEvent("token_strip.selection", { detail: strip }))
}

export default function ({ data }) {
  say(data.strip, data.selected)
  return () => say(data.strip, null)
}
