"""Results to figures or HTML: pure functions, no Streamlit."""
