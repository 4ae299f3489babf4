// Shows the API's own document. Everything that is loaded comes from this server.
"use strict";

SwaggerUIBundle({
  url: new URL("openapi.json", document.baseURI).href,
  dom_id: "#operations",
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  filter: true,
  validatorUrl: null,
});
