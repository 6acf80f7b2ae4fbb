"""The pages that people look at: one style, each page one file that needs nothing else.

    page     the frame around every page: style sheet, head, footer; everything put in is escaped
    plots    figures as SVG inside the page, in its colours, light or dark
    the rest one module for each kind of page, which says what stands on it

It needs the extra ``audit`` (jinja2, matplotlib).
"""
