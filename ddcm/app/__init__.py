"""The verbs on a web page. Only what is in here knows Gradio."""
