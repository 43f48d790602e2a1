
// The same grid in a file of its own: its payloads stand in the page, as base64.
{
  const read = element => {
    const letters = atob(element.content.textContent)
    const bytes = new Uint8Array(letters.length)
    for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i)
    return bytes
  }
  for (const element of document.querySelectorAll("[data-payload=cells]")) chunks.add(read(element))
  const frame = document.querySelector("[data-payload=frame]")
  grid({ data: read(frame), parentElement: document.getElementById("grid"), setTriggerValue() {} })
}
