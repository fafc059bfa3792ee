"""The base template, the style and the rendering of HTML pages."""
