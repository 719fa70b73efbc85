// Light or dark: what the system has, until the reader chooses. A page opened from disk may have no storage.
"use strict";
(() => {
  const root = document.documentElement;
  const stored = () => { try { return localStorage.getItem("ichseq-theme"); } catch { return null; } };
  if (stored()) root.dataset.theme = stored();
  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", () => {
      const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
      try { localStorage.setItem("ichseq-theme", root.dataset.theme); } catch { /* for this page alone, then */ }
    });
  });
})();
