"""The pages, top to bottom each: inputs, one question to the core, figures. They never import each other."""
