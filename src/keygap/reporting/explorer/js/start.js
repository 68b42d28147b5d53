// In a report all data are in the page.

const root = document.getElementById("explorer-view");
new Explorer(root, JSON.parse(document.getElementById("explorer-data").textContent));
