
// The same grid in a file of its own: its payloads stand in the page, as base64.
{
  const read = element => Uint8Array.from(atob(element.content.textContent), letter => letter.charCodeAt(0))
  for (const element of document.querySelectorAll("[data-payload=cells]")) chunks.add(read(element))
  const frame = document.querySelector("[data-payload=frame]")
  grid({ data: read(frame), parentElement: document.getElementById("grid"), setTriggerValue() {} })
}
