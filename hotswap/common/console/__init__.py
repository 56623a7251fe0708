"""The kit that every page of the console is made of.

Rules:
- `admin.py` of an app registers, and no more. `console/pages/<model>.py` has the list,
  the filters and the page of a model, `console/actions/<model>.py` what people do to
  it with their forms, `console/badges.py` the colours, icons and words of its statuses.
- A list and a page of an object only show. Whatever changes something is an `Action`: a
  form of its own that is executed on POST alone and calls one service.
- What a role may not do is shown, disabled, with the role that it needs.
"""
