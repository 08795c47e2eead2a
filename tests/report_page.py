"""A report that is open in a browser, for tests and benchmarks: what can be done to it and asked of it."""

from __future__ import annotations

from browser import complaints, requests, until


class Report:
    """A report that is open in the browser."""

    def __init__(self, driver, path, address=""):
        self.driver = driver
        driver.get("about:blank")
        complaints(driver), requests(driver)
        driver.get(f"{path.as_uri()}{address}")
        self.ready(address or "#/")

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def ready(self, address):
        until(lambda: self.run("return document.body.dataset.ready") == address, f"the page {address}")

    def go(self, address):
        self.run("location.hash = arguments[0]", address)
        self.ready(address)

    def one(self, selector):
        return self.driver.find_element("css selector", selector)

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def text(self, selector):
        return [element.text for element in self.all(selector)]

    def keys(self, *keys):
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def lines(self):
        """Labels of the table's rows in sight, from the top."""
        return self.run(
            """const body = document.querySelector(".body").getBoundingClientRect();
            return [...document.querySelectorAll(".body .line:not([hidden])")]
              .map((line) => [line.getBoundingClientRect().top, line.querySelector(".label").textContent])
              .filter(([top]) => top >= body.top - 1 && top < body.bottom).sort((a, b) => a[0] - b[0])
              .map(([, label]) => label)"""
        )

    def filter(self, text):
        box = self.one("#filter")
        box.clear()
        box.send_keys(text)

    def sort(self, column):
        self.one(f".head [data-column={column}] button").click()


# From the change to the frame that shows it, in milliseconds; the median of several.
TIMED = """
const done = arguments[arguments.length - 1];
const change = new Function("report", "i", arguments[0]);
const times = [];
const step = (i) => {
  if (i === 7) return done(times.sort((a, b) => a - b)[3]);
  const start = performance.now();
  change(pyparam.report, i);
  requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => {
      times.push(performance.now() - start);
      setTimeout(() => step(i + 1), 30);
    };
    channel.port2.postMessage(null);
  });
};
step(0);
"""
FILTER = "const f = document.getElementById('filter'); f.value = ['norm', 'exp', '3.q', '*.weight', '', 'layers.1', 'up_proj'][i]; f.dispatchEvent(new Event('input'));"
SCROLL = "report.table.body.scrollTop = (i + 1) * report.table.body.scrollHeight / 9;"


def timed(report, change):
    """Milliseconds that the page takes to answer, without the driver's own."""
    # The page's policy allows no code made from text: what is timed goes in as a function.
    script = TIMED.replace('new Function("report", "i", arguments[0])', f"(report, i) => {{ {change} }}")
    return report.driver.execute_async_script(script)


def responds(report):
    report.one("#open-all").click()
    assert report.run("return pyparam.report.table.items.length") > report.run(
        "return pyparam.report.model.length"
    )
    times = {"scroll": timed(report, SCROLL), "filter": timed(report, FILTER)}
    report.filter("")
    assert len(report.all(".body .line")) < 60
    return times
