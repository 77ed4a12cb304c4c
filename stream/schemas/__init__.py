"""JSON Schemas of events and Redis values and the AsyncAPI document of the topics: files, made by `generation`."""
