"""Routes over the timetable of the bundle in service: what changes of it while it is served, and what is said of it and of a route."""
